# SPDX-License-Identifier: Apache-2.0
"""Images with captions as people keep them: beside text files, in folders by class, in a table or in JSON lines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow
import pyarrow.parquet

from unigen.data.captions import class_sentence
from unigen.data.class_folders import class_name, images_below
from unigen.data.faults import Fault
from unigen.errors import DataError

Kind = Literal["folder", "imagefolder", "tsv", "jsonl", "parquet"]
_LINES = {"tsv": "path<TAB>caption", "jsonl": '{"image": path, "caption": text}'}
"""Of the kinds that are one file of lines."""
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class CaptionedImage:
    """An image, as a file or as the bytes of one, and its caption; neither has been looked at."""

    place: str
    image: bytes | Path
    caption: str

    def read(self) -> bytes:
        """The image file."""
        return self.image.read_bytes() if isinstance(self.image, Path) else self.image


def find_captioned_images(
    source: Path, kind: Kind, image_column: str, caption_column: str
) -> Iterator[CaptionedImage | Fault]:
    """All images of `source`, which is of `kind`; see `convert_to_shards`.

    Raises:
        DataError: a source that is not there or not of that kind.
    """
    if not source.exists():
        raise DataError(f"there is no {source} to convert")
    if kind in ("folder", "imagefolder") and not source.is_dir():
        raise DataError(f"{source} is not a folder; kind {kind} reads one")
    if kind in _LINES and not source.is_file():
        raise DataError(f"{source} is not a file; kind {kind} reads lines of {_LINES[kind]}")
    if kind == "folder":
        return _from_folder(source)
    if kind == "imagefolder":
        return _from_image_folder(source)
    if kind == "tsv":
        return _from_tsv(source)
    read = _from_jsonl if kind == "jsonl" else _from_parquet
    return read(source, image_column, caption_column)


def class_caption(folder: str) -> str:
    """`golden_retriever` -> `A photograph of a golden retriever.`"""
    return class_sentence("A photograph of a {}.", class_name(folder))


def _from_folder(source: Path) -> Iterator[CaptionedImage | Fault]:
    for path in images_below(source):
        try:
            yield CaptionedImage(
                str(path), path, path.with_suffix(".txt").read_text(encoding="utf-8", errors="replace")
            )
        except FileNotFoundError:
            yield Fault("missing_key", str(path), "no .txt beside it")


def _from_image_folder(source: Path) -> Iterator[CaptionedImage | Fault]:
    for path in images_below(source):
        folder = path.relative_to(source).parts[0]
        if path.parent == source:
            yield Fault("missing_key", str(path), "not in a class's folder")
        else:
            yield CaptionedImage(str(path), path, class_caption(folder))


def _from_tsv(source: Path) -> Iterator[CaptionedImage | Fault]:
    with open(source, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            image, tab, caption = line.rstrip("\r\n").partition("\t")
            if not line.strip():
                continue
            place = f"{source}:{number}"
            yield (
                CaptionedImage(place, source.parent / image, caption) if tab else Fault("missing_key", place, "no tab")
            )


def _from_jsonl(source: Path, image_key: str, caption_key: str) -> Iterator[CaptionedImage | Fault]:
    with open(source, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _from_line(line, source.parent, image_key, caption_key, f"{source}:{number}")


def _from_line(line: str, folder: Path, image_key: str, caption_key: str, place: str) -> CaptionedImage | Fault:
    try:
        fields = json.loads(line)
    except ValueError as error:
        return Fault("not_json", place, str(error))
    if not isinstance(fields, dict):
        return Fault("not_json", place, f"a {type(fields).__name__} instead of an object")
    image, caption = fields.get(image_key), fields.get(caption_key)
    if not isinstance(image, str) or not image:
        return Fault("missing_image", place, f"no path under '{image_key}'")
    if not isinstance(caption, str):
        return Fault("missing_key", place, f"no text under '{caption_key}'")
    return CaptionedImage(place, folder / image, caption)


def _from_parquet(source: Path, image_column: str, caption_column: str) -> Iterator[CaptionedImage | Fault]:
    for path in sorted(source.glob("*.parquet")) if source.is_dir() else [source]:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                _check_columns(path, file.schema_arrow.names, (image_column, caption_column))
                columns = [image_column, caption_column]
                number = 0
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False):
                    for row in batch.to_pylist():
                        yield _from_row(row[image_column], row[caption_column], path, number)
                        number += 1
        except (OSError, pyarrow.ArrowException) as error:
            yield Fault("unreadable_shard", str(path), " ".join(str(error).split())[:200])


def _from_row(image: Any, caption: Any, path: Path, number: int) -> CaptionedImage | Fault:
    place = f"{path}:{number}"
    if isinstance(image, dict):  # as the library `datasets` stores images
        image = image.get("bytes") or image.get("path")
    if not isinstance(image, bytes | str):
        return Fault("missing_image", place)
    return CaptionedImage(place, path.parent / image if isinstance(image, str) else image, str(caption or ""))


def _check_columns(path: Path, names: list[str], wanted: tuple[str, str]) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(f"{path} has the columns {names}, not {missing}; name the columns of the image and the caption")
