# SPDX-License-Identifier: Apache-2.0
"""Images with captions or conversations in WebDataset shards: to draw from the caption, or to be asked about."""

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.draws import Draws
from unigen.data.faults import Fault
from unigen.data.image_words import IMAGE_EXTENSIONS, KEPT_MEMBERS, MemberUse, first_member
from unigen.data.images import decode_image
from unigen.data.local_copies import local_copy
from unigen.data.records import Part, Record, Undecoded, take_part
from unigen.data.sample import RawSample
from unigen.data.shards import TAR_SUFFIXES, expand_shards, scheme_of
from unigen.data.tars import TarSample, count_samples, read_tar

_SHARDS_COUNTED = 64
_SHARDS_KEPT = 8


class ImageTextSource:
    """Captioned images of a list of tars.

    A folder of shards may hold `sizes.json`, the number of samples by file name, as `unigen convert data` writes it.
    """

    def __init__(self, name: str, config: SourceConfig, data: DataConfig, draft_side: int | None = None) -> None:
        """`draft_side`: see `decode_image`."""
        self.name = name
        self._config = config
        self._data = data
        self._draft_side = draft_side
        self._shards = expand_shards(config.paths, data.root, allow_pipe=data.allow_pipe)
        self._members = MemberUse(config)
        self._listed: OrderedDict[int, list[Record | Fault]] = OrderedDict()

    @property
    def shards(self) -> Sequence[str]:
        return self._shards

    def num_samples(self) -> int | None:
        """The configured number, else that of `sizes.json`, else counted where that means opening few local files."""
        if self._config.num_samples is not None:
            return self._config.num_samples
        if any(scheme_of(shard) for shard in self._shards):
            return None
        sizes = _sizes(self._shards)
        if sizes is not None:
            return sum(sizes)
        return sum(map(count_samples, self._shards)) if len(self._shards) <= _SHARDS_COUNTED else None

    def read(self, shard: int, part: Part, skip: int) -> Iterator[Record | Fault]:
        is_indexed = part.of > 1 and not scheme_of(self._shards[shard])  # else the bytes would be kept as well
        return take_part(iter(self._whole(shard)) if is_indexed else self._entries(shard), part, skip)

    def decode(self, record: Record, draws: Draws) -> RawSample:
        sample: TarSample = record.content
        return self._members.sample(record, sample, draws, images=lambda: (self._image(sample),))

    def label(self, shard: int) -> str:
        return shard_label(self._shards[shard], self._data.root)

    def code_file(self, shard: int) -> str:
        label = self.label(shard)
        name = label.split("://", 1)[1] if scheme_of(label) else label.lstrip("/")
        for suffix in sorted(TAR_SUFFIXES, key=len, reverse=True):
            name = name.removesuffix(suffix)
        return name

    def undecoded(self, record: Record) -> Undecoded:
        sample: TarSample = record.content
        image = first_member(sample, IMAGE_EXTENSIONS)
        found = {kept: _any_member(sample, extensions) for kept, extensions in KEPT_MEMBERS.items()}
        return Undecoded(found, (image,))

    def _image(self, sample: TarSample) -> Image.Image:
        content = first_member(sample, IMAGE_EXTENSIONS)
        return decode_image(content, max_pixels=self._data.max_image_pixels, draft_side=self._draft_side)

    def _entries(self, shard: int) -> Iterator[Record | Fault]:
        prefix = f"{self.name}/{self.label(shard)}/"
        for entry in read_tar(local_copy(self._shards[shard], self._data), allow_pipe=self._data.allow_pipe):
            yield entry if isinstance(entry, Fault) else Record(prefix + entry.key, entry)

    def _whole(self, shard: int) -> list[Record | Fault]:
        """All entries of a shard that several lanes share, kept for the next lane."""
        if shard not in self._listed:
            self._listed[shard] = list(self._entries(shard))
            if len(self._listed) > _SHARDS_KEPT:
                self._listed.popitem(last=False)
        self._listed.move_to_end(shard)
        return self._listed[shard]


def _any_member(sample: TarSample, extensions: tuple[str, ...]) -> bytes:
    """The content of the first of `extensions` that a sample has; nothing where it has none."""
    return next((sample.read(one) for one in extensions if one in sample.members), b"")


def shard_label(shard: str, root: str | Path) -> str:
    """A shard's name in keys: where it lies under `<root>/datasets`, so that the folder may move."""
    path, base = Path(shard), Path(root) / "datasets"
    return shard if scheme_of(shard) or not path.is_relative_to(base) else str(path.relative_to(base))


def _sizes(shards: Sequence[str]) -> list[int] | None:
    """The samples of each shard by the `sizes.json` beside it; None if one is not listed."""
    known: dict[Path, dict[str, int]] = {}
    sizes = []
    for path in map(Path, shards):
        if path.parent not in known:
            try:
                known[path.parent] = json.loads((path.parent / "sizes.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return None
        size = known[path.parent].get(path.name)
        if not isinstance(size, int):
            return None
        sizes.append(size)
    return sizes
