# SPDX-License-Identifier: Apache-2.0
"""Records of one kind: files of one record per line, or of one JSON list.

Files are indexed once; a record is read and parsed when it is used, and images that it names are read from a folder beside it.
"""

import json
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.annotation_files import AnnotationFile, find_annotations
from unigen.data.draws import Draws
from unigen.data.faults import Cause, Fault, SampleRefused
from unigen.data.images import decode_image, read_image_file
from unigen.data.records import Part, Record, listing_hash, take_part
from unigen.data.sample import RawSample
from unigen.errors import ConfigError, DataError

CHUNK = 1000
"""All records of all files are mixed once, then dealt into shards of about this many."""


@dataclass(frozen=True)
class _File:
    annotation: AnnotationFile
    offsets: np.ndarray
    sizes: np.ndarray
    """Where each record lies, in bytes."""


@dataclass(frozen=True)
class FoundRecord:
    """A record that was parsed, and how to come by its images."""

    fields: dict[str, Any]
    folder: Path
    max_pixels: int
    draft_side: int | None

    def image(self, path: str) -> Image.Image:
        """The image that the record calls `path`.

        Raises:
            SampleRefused: it is not there, or cannot be used.
        """
        return decode_image(self.content(path), max_pixels=self.max_pixels, draft_side=self.draft_side)

    def content(self, path: str) -> bytes:
        """The file of that image.

        Raises:
            SampleRefused: it is not there.
        """
        return read_image_file(self.folder / path)


class RecordSource(ABC):
    """The records of one or more local files, of each as many as `take` says, mixed. See `records.Source`."""

    bad_cause: Cause
    """Why a record is refused that is JSON and not what it should be."""

    def __init__(
        self, name: str, config: SourceConfig, data: DataConfig, seed: int, draft_side: int | None = None
    ) -> None:
        """`draft_side`: see `decode_image`."""
        self.name = name
        self._draft_side, self._max_pixels = draft_side, data.max_image_pixels
        self._files = _index_all(find_annotations(config, data.root))
        self._entries = _mix(_take(self._files, config.take, name, seed), Draws(seed, name, 0))
        # A multiple of the lanes, so that each lane gets the same number of records.
        chunks = data.lanes * max(1, -(-len(self._entries) // (data.lanes * CHUNK)))
        self._shards = [f"{name}#{chunk}" for chunk in range(chunks)]

    @property
    def shards(self) -> Sequence[str]:
        return self._shards

    def num_samples(self) -> int:
        return len(self._entries)

    def read(self, shard: int, part: Part, skip: int) -> Iterator[Record | Fault]:
        return take_part(self._chunk(shard), part, skip)

    def label(self, shard: int) -> str:
        """Empty, for a shard holds records of several files."""
        return ""

    def code_file(self, shard: int) -> str:
        """Another one for records of other files, places or sizes."""
        records = self._entries[shard :: len(self._shards)].tolist()
        listing = (
            f"{self._files[number].annotation.label} {line} {self._size(number, line)}" for number, line in records
        )
        return f"{self.name}/{shard:05d}-{listing_hash(listing)}"

    @abstractmethod
    def decode(self, record: Record, draws: Draws) -> RawSample:
        """See `records.Source`."""

    def _size(self, file: int, line: int) -> int:
        return int(self._files[file].sizes[line])

    def _annotation(self, record: Record) -> AnnotationFile:
        return self._files[record.content[0]].annotation

    def _content(self, record: Record) -> bytes:
        """The record as it stands in its file."""
        number, line = record.content
        file = self._files[number]
        with FileIO(file.annotation.path) as stream:
            return os.pread(stream.fileno(), self._size(number, line), int(file.offsets[line]))

    def _find(self, record: Record) -> FoundRecord:
        """Read and parse a record.

        Raises:
            SampleRefused: it is not JSON, or no object.
        """
        try:
            fields = json.loads(self._content(record))
        except ValueError as error:
            raise SampleRefused("not_json", str(error)) from error
        if not isinstance(fields, dict):
            raise SampleRefused(self.bad_cause, f"a {type(fields).__name__} instead of an object")
        return FoundRecord(fields, self._annotation(record).images, self._max_pixels, self._draft_side)

    def _chunk(self, shard: int) -> Iterator[Record | Fault]:
        for number, line in self._entries[shard :: len(self._shards)].tolist():
            yield Record(f"{self.name}/{self._files[number].annotation.label}/{line}", (number, line))


def _index_all(annotations: Sequence[AnnotationFile]) -> list[_File]:
    """The place of every record; a file that is read again is indexed once."""
    places: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
    files = []
    for one in annotations:
        if one.path not in places:
            places[one.path] = _index(one.path)
        offsets, sizes = places[one.path]
        count = int(len(offsets) * one.share)
        files.append(_File(one, offsets[:count], sizes[:count]))
    if not any(len(file.offsets) for file in files):
        raise DataError(f"{files[0].annotation.path}: its repeat_time of {files[0].annotation.share} leaves no record")
    return files


def _index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with open(path, "rb") as stream:
        start = stream.read(4096).lstrip()[:1]
    is_list = path.suffix == ".json" and start == b"["
    offsets, sizes = _index_list(path) if is_list else _index_lines(path)
    if not offsets:
        raise DataError(f"{path} holds no record")
    return np.array(offsets, dtype=np.int64), np.array(sizes, dtype=np.int64)


def _index_lines(path: Path) -> tuple[array, array]:
    """Offsets and sizes in bytes of the lines that are not blank."""
    offsets, sizes = array("q"), array("q")
    place = 0
    with open(path, "rb") as stream:
        for line in stream:
            if not line.isspace():
                offsets.append(place)
                sizes.append(len(line))
            place += len(line)
    return offsets, sizes


def _index_list(path: Path) -> tuple[array, array]:
    """Offsets and sizes in bytes of the elements of a JSON list."""
    offsets, sizes = array("q"), array("q")
    decoder = json.JSONDecoder()
    try:
        text = path.read_text(encoding="utf-8")
        here = text.index("[") + 1
        place = len(text[:here].encode())
        while True:
            start = _next_element(text, here)
            if text[start : start + 1] == "]":
                return offsets, sizes
            _, end = decoder.raw_decode(text, start)
            offsets.append(place + len(text[here:start].encode()))
            sizes.append(len(text[start:end].encode()))
            here, place = end, offsets[-1] + sizes[-1]
    except ValueError as error:
        raise DataError(
            f"{path} is not a JSON list: {error}; one record per line in a .jsonl survives damage"
        ) from error


def _next_element(text: str, here: int) -> int:
    """The first character that is neither blank nor a comma."""
    while text[here : here + 1] in {" ", "\n", "\r", "\t", ","}:
        here += 1
    return here


def _take(files: list[_File], take: Sequence[str], name: str, seed: int) -> list[np.ndarray]:
    """Numbers of the records of each file that are used: all, `NN%` of them or an absolute number, drawn at random."""
    if take and len(take) != len(files):
        raise ConfigError(f"data.sources.{name}.take has {len(take)} entries for {len(files)} files; give one per file")
    taken = []
    for file, amount in zip(files, take or ["100%"] * len(files), strict=True):
        total = len(file.offsets)
        order = Draws(seed, f"{name}/{file.annotation.label}", 0).generator("take").permutation(total)
        taken.append(np.sort(order[: _amount(amount, total, name)]))
    return taken


def _amount(amount: str, total: int, name: str) -> int:
    number = amount.strip().removesuffix("%")
    try:
        value = float(number) if amount.strip().endswith("%") else int(number)
    except ValueError:
        value = -1
    if value < 0:
        raise ConfigError(
            f"data.sources.{name}.take has '{amount}'; write '50%' or a number of records such as '20000'"
        )
    return min(total, round(total * value / 100) if isinstance(value, float) else value)


def _mix(taken: list[np.ndarray], draws: Draws) -> np.ndarray:
    """(records, 2): number of the file and of the record in it, mixed over all files."""
    entries = np.concatenate(
        [np.stack([np.full_like(records, number), records], axis=1) for number, records in enumerate(taken)]
    )
    return entries[draws.generator("mix").permutation(len(entries))]
