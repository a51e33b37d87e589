# SPDX-License-Identifier: Apache-2.0
"""Folders of classes, as ImageNet comes: the images of a class in a folder of its own, drawn from or described by a sentence.

Every visit draws its sentence. Nothing is moved or converted.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.draws import Draws
from unigen.data.faults import Fault
from unigen.data.image_words import CaptionUse
from unigen.data.images import decode_image, read_image_file
from unigen.data.records import Part, Record, Undecoded, listing_hash, take_part
from unigen.data.sample import RawSample
from unigen.errors import ConfigError, DataError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True)
class _Class:
    folder: Path
    label: str
    """Its name in keys: where it lies under the datasets folder, so that the folder may move."""
    name: str


def class_name(folder: str) -> str:
    """`golden_retriever` -> `golden retriever`."""
    return " ".join(re.split(r"[_\s]+", folder.strip()))


def images_below(folder: Path) -> Iterator[Path]:
    """The image files of a folder and those below it, by name."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            yield path


class ClassFolderSource:
    """The images of one or more roots; a shard is a class. See `records.Source`."""

    def __init__(self, name: str, config: SourceConfig, data: DataConfig, draft_side: int | None = None) -> None:
        """
        Args:
            draft_side: see `decode_image`.

        Raises:
            ConfigError: names or templates that cannot be read, or classes without a name.
            DataError: a root that is not there or has no folders.
        """
        self.name = name
        self._num_samples, self._max_pixels, self._draft_side = config.num_samples, data.max_image_pixels, draft_side
        base = Path(data.root) / "datasets"
        self._classes = [one for path in config.paths for one in _classes(base / path, base, config.class_names)]
        self._captions = CaptionUse(replace(config, class_templates=templates_of(config)))
        self._listed: dict[int, list[str]] = {}

    @property
    def shards(self) -> Sequence[str]:
        return [one.label for one in self._classes]

    def num_samples(self) -> int | None:
        """The configured number, else counted: that is listing the folders, not opening the images."""
        if self._num_samples is not None:
            return self._num_samples
        return sum(len(self._files(shard)) for shard in range(len(self._classes)))

    def read(self, shard: int, part: Part, skip: int) -> Iterator[Record | Fault]:
        label = self._classes[shard].label
        records = (Record(f"{self.name}/{label}/{file}", (shard, file)) for file in self._files(shard))
        return take_part(records, part, skip)

    def decode(self, record: Record, draws: Draws) -> RawSample:
        shard, file = record.content
        found = self._classes[shard]
        return self._captions.sample(record, found.name, draws, images=lambda: (self._image(found.folder / file),))

    def label(self, shard: int) -> str:
        return self._classes[shard].label

    def code_file(self, shard: int) -> str:
        found = self._classes[shard]
        return f"{found.label.lstrip('/')}-{listing_hash([found.name, *self._files(shard)])}"

    def undecoded(self, record: Record) -> Undecoded:
        shard, file = record.content
        found = self._classes[shard]
        return Undecoded({"txt": found.name.encode()}, (read_image_file(found.folder / file),))

    def _image(self, path: Path) -> Image.Image:
        return decode_image(read_image_file(path), max_pixels=self._max_pixels, draft_side=self._draft_side)

    def _files(self, shard: int) -> list[str]:
        """Paths of a class's images below its folder, listed once."""
        if shard not in self._listed:
            folder = self._classes[shard].folder
            self._listed[shard] = [str(path.relative_to(folder)) for path in images_below(folder)]
        return self._listed[shard]


def templates_of(config: SourceConfig) -> str:
    """The templates of a source of class folders."""
    return config.class_templates or "photo"


def _classes(root: Path, base: Path, names_file: str | None) -> list[_Class]:
    if not root.is_dir():
        raise DataError(f"there is no folder {root} of classes; relative paths lie under <data.root>/datasets")
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    if not folders:
        raise DataError(f"the folder {root} has no folder in it; an imagefolder has one for each class")
    names = _names([folder.name for folder in folders], None if names_file is None else base / names_file)
    label = str(root.relative_to(base)) if root.is_relative_to(base) else str(root)
    return [_Class(folder, f"{label}/{folder.name}", names[folder.name]) for folder in folders]


def _names(folders: Sequence[str], file: Path | None) -> Mapping[str, str]:
    """The name of each class, by its folder."""
    if file is None:
        return {folder: class_name(folder) for folder in folders}
    try:
        text = file.read_text(encoding="utf-8")
        given = json.loads(text) if file.suffix == ".json" else dict(zip(folders, text.splitlines(), strict=True))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"class_names {file} cannot be used for {len(folders)} classes: {error}; give a .json of names by folder, or a text "
            "file with one name a line"
        ) from error
    if not isinstance(given, dict):
        raise ConfigError(f"class_names {file} must hold an object of names by folder")
    missing = [folder for folder in folders if not isinstance(given.get(folder), str) or not given[folder].strip()]
    if missing:
        raise ConfigError(f"class_names {file} has no name for the folder {missing[0]!r} ({len(missing)} such)")
    return {folder: given[folder].strip() for folder in folders}
