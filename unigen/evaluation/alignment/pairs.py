# SPDX-License-Identifier: Apache-2.0
"""Images with captions, in order: a folder of images with a .txt beside each, a file of captions, or WebDataset shards."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from unigen.data.captioned import Kind, find_captioned_images
from unigen.data.faults import Fault, SampleRefused
from unigen.data.image_words import IMAGE_EXTENSIONS, TEXT_EXTENSIONS, first_member
from unigen.data.shards import TAR_SUFFIXES, expand_shards
from unigen.data.tars import TarSample, read_tar
from unigen.errors import EvaluationError

_FILES: dict[str, Kind] = {".jsonl": "jsonl", ".tsv": "tsv", ".parquet": "parquet"}
"""Files of captions, by suffix."""


@dataclass(frozen=True)
class Pair:
    """A caption, and the bytes of an image file once they are asked for."""

    name: str
    caption: str
    read_image: Callable[[], bytes]


def find_pairs(place: Path, most: int) -> list[Pair]:
    """The first `most` pairs of a folder of images (in order of their paths), of a file of captions (.jsonl, .tsv, .parquet, see
    `find_captioned_images`), or of a brace list or a folder of shards.

    Raises:
        EvaluationError: an image without a caption, or a damaged shard: the set has to be the same whenever it is read.
        ConfigError, DataError: nothing is there.
    """
    has_shards = place.is_dir() and any(file.name.endswith(TAR_SUFFIXES) for file in place.iterdir())
    kind: Kind | None = "folder" if place.is_dir() else _FILES.get(place.suffix)
    found = _from_shards(place) if kind is None or has_shards else _from_captioned(place, kind)
    pairs = list(islice(found, most))
    if not pairs:
        raise EvaluationError(f"{place} holds no images with captions; give another place with alignment.pairs=PATH")
    return pairs


def pairs_hash(pairs: Sequence[Pair]) -> str:
    """SHA-256 of all captions and image files."""
    digest = hashlib.sha256()
    for pair in pairs:
        for part in (pair.caption.encode(), pair.read_image()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def _from_captioned(place: Path, kind: Kind) -> Iterator[Pair]:
    for found in find_captioned_images(place, kind, "image", "caption"):
        if isinstance(found, Fault):
            raise _complaint(found)
        yield _pair(found.place, found.caption, found.read)


def _from_shards(place: Path) -> Iterator[Pair]:
    for shard in expand_shards([str(place.absolute())], ""):
        for sample in read_tar(shard):
            if isinstance(sample, Fault):
                raise _complaint(sample)
            yield _from_sample(shard, sample)


def _from_sample(shard: str, sample: TarSample) -> Pair:
    place = f"{shard}/{sample.key}"
    try:
        caption = first_member(sample, TEXT_EXTENSIONS).decode("utf-8", errors="replace")
    except SampleRefused as refused:
        raise _complaint(Fault(refused.cause, place, refused.detail)) from refused
    return _pair(place, caption, partial(first_member, sample, IMAGE_EXTENSIONS))


def _pair(name: str, caption: str, read_image: Callable[[], bytes]) -> Pair:
    words = " ".join(caption.split())
    if not words:
        raise EvaluationError(f"{name} has an empty caption; write one, or take the image away")
    return Pair(name, words, read_image)


def _complaint(fault: Fault) -> EvaluationError:
    detail = f" ({fault.detail})" if fault.detail else ""
    return EvaluationError(f"{fault.place}: {fault.cause.replace('_', ' ')}{detail}; mend it, or take it away")
