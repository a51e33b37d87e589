# SPDX-License-Identifier: Apache-2.0
"""What every source of samples offers: shards that are read record by record, and records that are decoded one by one."""

from collections.abc import Iterator, Sequence
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


def take_part(entries: Iterator[E], part: Part, skip: int) -> Iterator[E]:
    """The entries of `part` without the first `skip` of them."""
    return islice(entries, part.index + skip * part.of, None, part.of)
