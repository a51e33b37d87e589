# SPDX-License-Identifier: Apache-2.0
"""What every source of samples offers: shards that are read record by record, and records that are decoded one by one."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from unigen.data.draws import Draws
from unigen.data.faults import Fault
from unigen.data.sample import RawSample

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Record:
    """One sample before decoding; passing over it costs next to nothing."""

    key: str
    """Unique and stable over runs: `source/shard/record`."""
    content: Any
    """Whatever the source that made it needs to decode it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Every `of`-th record of a shard, from number `index` on; `Part(0, 1)` is the whole shard."""

    index: int = 0
    of: int = 1


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A record as bytes: its images, and what has to be kept beside codes of them."""

    members: Mapping[str, bytes]
    """By the extension that they would have in a tar: the words under `txt`, or under `json`."""
    images: tuple[bytes, ...]


class Source(Protocol):
    """One entry of `data.sources`, opened. Holds no open file until it is read, so that it can travel to a worker."""

    name: str

    @property
    def shards(self) -> Sequence[str]:
        """Names of the shards, in a fixed order."""
        ...

    def num_samples(self) -> int | None:
        """Samples of one epoch as far as it is cheap to know."""
        ...

    def read(self, shard: int, part: Part, skip: int) -> Iterator[Record | Fault]:
        """The entries of a part of a shard, always in the same order, without the first `skip` of them."""
        ...

    def decode(self, record: Record, draws: Draws) -> RawSample:
        """The sample of a record.

        Raises:
            SampleRefused: for a record that cannot be used.
        """
        ...


class EncodableSource(Source, Protocol):
    """A source whose images can become codes ahead of training."""

    def label(self, shard: int) -> str:
        """What the keys of a shard's records begin with, after the name of the source; empty where they differ."""
        ...

    def code_file(self, shard: int) -> str:
        """Where the codes of a shard belong, without suffix: a relative path, which is another one for other records."""
        ...

    def undecoded(self, record: Record) -> Undecoded:
        """The bytes of a record.

        Raises:
            SampleRefused: for a record that cannot be used.
        """
        ...


def listing_hash(entries: Iterable[str]) -> str:
    """A short name for a list of records."""
    digest = hashlib.blake2b(digest_size=5)
    for entry in entries:
        digest.update(f"{entry}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def take_part(entries: Iterator[E], part: Part, skip: int) -> Iterator[E]:
    """The entries of `part` without the first `skip` of them."""
    return islice(entries, part.index + skip * part.of, None, part.of)
