# SPDX-License-Identifier: Apache-2.0
"""Images with captions or conversations in WebDataset shards: to draw from the caption, or to be asked about."""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.captions import clean_caption, load_prompts, refuse_cjk
from unigen.data.draws import Draws
from unigen.data.faults import Cause, Fault, SampleRefused
from unigen.data.images import decode_image
from unigen.data.local_copies import local_copy
from unigen.data.records import Part, Record, take_part
from unigen.data.sample import RawSample, Turn
from unigen.data.shards import expand_shards, scheme_of
from unigen.data.tars import TarSample, count_samples, read_tar
from unigen.data.turns import read_turns

IMAGE_EXTENSIONS = ("jpg", "png", "jpeg", "webp")
TEXT_EXTENSIONS = ("txt", "text", "caption")
_SHARDS_COUNTED = 64
_SHARDS_KEPT = 8


class CaptionUse:
    """What a source makes of the text of an image: a caption to draw from, or the answer to what asks for it."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._prompts = load_prompts(config.caption_prompts) if config.task == "mmu" else ()

    def sample(
        self,
        record: Record,
        caption: str,
        draws: Draws,
        images: Callable[[], tuple[Image.Image, ...]] = tuple,
        codes: tuple[np.ndarray, ...] = (),
    ) -> RawSample:
        """The sample of a record; its images are only made for a usable caption.

        Raises:
            SampleRefused: no usable caption.
        """
        is_drawn = self._config.task == "t2i"
        short_prob = self._config.short_caption_prob if is_drawn else 0.0
        if self._config.skip_cjk:
            refuse_cjk(caption)
        text = clean_caption(caption, lambda: draws.generator("caption"), short_prob=short_prob)
        if is_drawn:
            return RawSample(record.key, "t2i", images=images(), text=text, codes=codes)
        prompt = self._prompts[int(draws.generator("caption_prompt").random() * len(self._prompts))]
        turns = (Turn("user", prompt), Turn("assistant", text))
        return RawSample(record.key, "mmu", images=images(), turns=turns, codes=codes)


class MemberUse:
    """What a source makes of the members of a sample in a shard: a caption, or a conversation."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._captions = CaptionUse(config)

    def sample(
        self,
        record: Record,
        members: TarSample,
        draws: Draws,
        images: Callable[[], tuple[Image.Image, ...]] = tuple,
        codes: tuple[np.ndarray, ...] = (),
    ) -> RawSample:
        """See `CaptionUse.sample`."""
        key = self._config.conversations_key
        if key is None:
            return self._captions.sample(record, self._caption(members), draws, images, codes)
        turns = read_turns(_json_field(members, key, list, "no list"))
        return RawSample(record.key, "mmu", images=images(), turns=turns, codes=codes)

    def _caption(self, sample: TarSample) -> str:
        key = self._config.caption_key
        if key is None:
            return first_member(sample, TEXT_EXTENSIONS).decode("utf-8", errors="replace")
        return str(_json_field(sample, key, str, "no text"))


def _json_field(sample: TarSample, key: str, kind: type, without: str) -> Any:
    try:
        fields = json.loads(first_member(sample, ("json",)))
    except ValueError as error:
        raise SampleRefused("not_json", str(error)) from error
    if not isinstance(fields, dict) or not isinstance(fields.get(key), kind):
        raise SampleRefused("missing_key", f"{without} under '{key}' in its .json")
    return fields[key]


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

    def _image(self, sample: TarSample) -> Image.Image:
        content = first_member(sample, IMAGE_EXTENSIONS)
        return decode_image(content, max_pixels=self._data.max_image_pixels, draft_side=self._draft_side)

    def _entries(self, shard: int) -> Iterator[Record | Fault]:
        prefix = f"{self.name}/{shard_label(self._shards[shard], self._data.root)}/"
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


def first_member(sample: TarSample, extensions: tuple[str, ...]) -> bytes:
    """The content of the first of `extensions` that a sample has.

    Raises:
        SampleRefused: it has none of them.
    """
    for extension in extensions:
        if extension in sample.members:
            return sample.read(extension)
    wanted = " or ".join(f".{extension}" for extension in extensions)
    cause: Cause = "missing_image" if extensions == IMAGE_EXTENSIONS else "missing_key"
    raise SampleRefused(cause, f"has {sorted(sample.members)}, no {wanted}")


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
