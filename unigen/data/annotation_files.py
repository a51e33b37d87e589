# SPDX-License-Identifier: Apache-2.0
"""Which files of records a source reads: those that its paths name, and those of meta files.

A meta file is a .json `{name: {"annotation": file, "root": folder of the images, "repeat_time": number}}`; its paths are
relative to its own folder. A `repeat_time` of 2.5 reads the file twice and the first half of it a third time, 0.1 the
first tenth.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.config.schema import SourceConfig
from unigen.data.shards import expand_files
from unigen.errors import DataError

SUFFIXES = (".json", ".jsonl", ".txt")
_LARGEST_META_FILE = 1 << 24
"""Bytes; larger files hold records."""


@dataclass(frozen=True)
class AnnotationFile:
    """A file of records, once."""

    path: Path
    images: Path
    """The folder that its image paths are relative to; absolute ones are taken as they are."""
    label: str
    """Its name in keys, which differs where a file is read again."""
    share: float = 1.0
    """How much of it is read, from its beginning."""


def find_annotations(config: SourceConfig, root: str | Path) -> list[AnnotationFile]:
    """The files of a source of records, in the order of its paths.

    Raises:
        ConfigError, DataError: what is not there, or a meta file that cannot be used.
    """
    base = Path(root) / "datasets"
    images = None if config.images is None else base / config.images
    found: list[AnnotationFile] = []
    for path in expand_files(config.paths, root, SUFFIXES, config.first_files):
        meta = _read_meta(path)
        if meta is None:
            found.append(AnnotationFile(path, path.parent if images is None else images, _label(path, base)))
        else:
            found += [file for name, entry in meta.items() for file in _of_entry(name, entry, path, base)]
    return found


def _read_meta(path: Path) -> dict[str, Any] | None:
    """The content of a meta file, None of a file of records.

    Raises:
        DataError: an object over several lines that is not JSON.
    """
    if path.suffix != ".json" or path.stat().st_size > _LARGEST_META_FILE:
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        if file.read(4096).lstrip()[:1] != "{":
            return None
        file.seek(0)
        try:
            content = json.load(file)
        except ValueError as error:
            file.seek(0)
            if file.readline().strip().endswith("}"):  # one record a line
                return None
            raise DataError(f"{path} is neither a meta file nor one record a line: {error}") from error
    entries = [entry for entry in content.values() if isinstance(entry, dict)]
    is_meta = len(entries) == len(content) and any("annotation" in entry for entry in entries)
    return content if is_meta else None


def _of_entry(name: str, entry: dict[str, Any], meta: Path, base: Path) -> Iterator[AnnotationFile]:
    annotation, images, times = entry.get("annotation"), entry.get("root", ""), entry.get("repeat_time", 1)
    if not isinstance(annotation, str) or not isinstance(images, str):
        raise DataError(f"{meta}: annotation and root of {name!r} must be paths")
    if isinstance(times, bool) or not isinstance(times, int | float) or not 0 < times < math.inf:
        raise DataError(f"{meta}: repeat_time of {name!r} is {times!r}; give a number above 0")
    for path in expand_files([str(meta.parent / annotation)], base.parent, SUFFIXES):
        for number in range(math.ceil(times)):
            again = f"~{number}" if number else ""
            label = f"{name}:{_label(path, base)}{again}"
            yield AnnotationFile(path, meta.parent / images, label, min(1.0, times - number))


def _label(path: Path, base: Path) -> str:
    """Where a file lies under the datasets folder, so that the folder may move."""
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)
