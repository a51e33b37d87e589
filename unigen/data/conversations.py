# SPDX-License-Identifier: Apache-2.0
"""Conversations about images: LLaVA-style JSON (a list) and JSONL.

A record is `{"image": path or list of paths, "conversations": [{"from": "human", "value": ...}, {"from": "gpt", ...}]}`.
Without `image` it is a conversation in text alone. Files are indexed once; a record is read and parsed when it is used.
"""

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.draws import Draws
from unigen.data.faults import Fault, SampleRefused
from unigen.data.images import decode_image
from unigen.data.records import Part, Record, take_part
from unigen.data.sample import RawSample
from unigen.data.shards import expand_files
from unigen.data.turns import IMAGE_MARK, read_turns
from unigen.errors import ConfigError, DataError

CHUNK = 1000
"""All records of all files are mixed once, then dealt into shards of about this many."""


@dataclass(frozen=True)
class _File:
    path: Path
    label: str
    """Its name in keys: where it lies under the datasets folder, so that the folder may move."""
    offsets: np.ndarray
    sizes: np.ndarray
    """Where each record lies, in bytes."""


class ConversationSource:
    """The conversations of one or more local files."""

    def __init__(
        self, name: str, config: SourceConfig, data: DataConfig, seed: int, draft_side: int | None = None
    ) -> None:
        """`draft_side`: see `decode_image`."""
        self.name = name
        self._draft_side = draft_side
        self._max_pixels = data.max_image_pixels
        base = Path(data.root) / "datasets"
        paths = expand_files(config.paths, data.root, (".json", ".jsonl"))
        self._images = [base / config.images if config.images is not None else path.parent for path in paths]
        self._files = [_index(path, base) for path in paths]
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

    def decode(self, record: Record, draws: Draws) -> RawSample:
        number, line = record.content
        fields = self._parse(self._files[number], line)
        paths = _image_paths(fields)
        turns = read_turns(fields.get("conversations"))
        if not paths and _mentions_image(fields):
            raise SampleRefused("missing_image", f"it says {IMAGE_MARK} and names no image")
        images = tuple(self._image(self._images[number] / path) for path in paths)
        return RawSample(record.key, "mmu", images=images, turns=turns)

    def _chunk(self, shard: int) -> Iterator[Record | Fault]:
        for number, line in self._entries[shard :: len(self._shards)].tolist():
            yield Record(f"{self.name}/{self._files[number].label}/{line}", (number, line))

    def _parse(self, file: _File, line: int) -> dict[str, Any]:
        with FileIO(file.path) as stream:
            content = os.pread(stream.fileno(), int(file.sizes[line]), int(file.offsets[line]))
        try:
            fields = json.loads(content)
        except ValueError as error:
            raise SampleRefused("not_json", str(error)) from error
        if not isinstance(fields, dict):
            raise SampleRefused("bad_conversation", f"a {type(fields).__name__} instead of an object")
        return fields

    def _image(self, path: Path) -> Image.Image:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SampleRefused("missing_image", f"{path}: {error.strerror}") from error
        return decode_image(content, max_pixels=self._max_pixels, draft_side=self._draft_side)


def _image_paths(fields: dict[str, Any]) -> list[str]:
    images = fields.get("image") or []
    paths = images if isinstance(images, list) else [images]
    if not all(isinstance(path, str) for path in paths):
        raise SampleRefused("bad_conversation", "its image is neither a path nor a list of paths")
    return paths


def _mentions_image(fields: dict[str, Any]) -> bool:
    return any(IMAGE_MARK in str(turn.get("value")) for turn in fields["conversations"])


def _index(path: Path, base: Path) -> _File:
    label = str(path.relative_to(base)) if path.is_relative_to(base) else str(path)
    with open(path, "rb") as stream:
        start = stream.read(4096).lstrip()[:1]
    is_list = path.suffix == ".json" and start == b"["
    offsets, sizes = _index_list(path) if is_list else _index_lines(path)
    if not offsets:
        raise DataError(f"{path} holds no record")
    return _File(path, label, np.array(offsets, dtype=np.int64), np.array(sizes, dtype=np.int64))


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
        order = Draws(seed, f"{name}/{file.label}", 0).generator("take").permutation(total)
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
