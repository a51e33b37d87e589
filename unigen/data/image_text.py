# SPDX-License-Identifier: Apache-2.0
"""Images with captions in WebDataset shards: to draw from the caption, or to be asked for it."""

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.captions import clean_caption, load_prompts
from unigen.data.draws import Draws
from unigen.data.faults import Cause, Fault, SampleRefused
from unigen.data.images import decode_image
from unigen.data.records import Part, Record, take_part
from unigen.data.sample import RawSample, Turn
from unigen.data.shards import expand_shards, scheme_of
from unigen.data.tars import TarSample, count_samples, read_tar

IMAGE_EXTENSIONS = ("jpg", "png", "jpeg", "webp")
TEXT_EXTENSIONS = ("txt", "text", "caption")
_SHARDS_COUNTED = 64
_SHARDS_KEPT = 8


class ImageTextSource:
    """Captioned images of a list of tars.

    A folder of shards may hold `sizes.json`, the number of samples by file name, as `unigen convert data` writes it.
    """

    def __init__(self, name: str, config: SourceConfig, data: DataConfig) -> None:
        self.name = name
        self._config = config
        self._data = data
        self._shards = expand_shards(config.paths, data.root, allow_pipe=data.allow_pipe)
        self._prompts = load_prompts(config.caption_prompts) if config.task == "mmu" else ()
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
        caption = self._caption(sample)
        short_prob = self._config.short_caption_prob if self._config.task == "t2i" else 0.0
        text = clean_caption(caption, draws.generator("caption"), short_prob=short_prob)
        image = decode_image(_first_member(sample, IMAGE_EXTENSIONS), max_pixels=self._data.max_image_pixels)
        if self._config.task == "t2i":
            return RawSample(record.key, "t2i", images=(image,), text=text)
        prompt = self._prompts[int(draws.generator("caption_prompt").integers(len(self._prompts)))]
        return RawSample(record.key, "mmu", images=(image,), turns=(Turn("user", prompt), Turn("assistant", text)))

    def _entries(self, shard: int) -> Iterator[Record | Fault]:
        prefix = f"{self.name}/{_label(self._shards[shard], Path(self._data.root) / 'datasets')}/"
        for entry in read_tar(self._shards[shard], allow_pipe=self._data.allow_pipe):
            yield entry if isinstance(entry, Fault) else Record(prefix + entry.key, entry)

    def _whole(self, shard: int) -> list[Record | Fault]:
        """All entries of a shard that several lanes share, kept for the next lane."""
        if shard not in self._listed:
            self._listed[shard] = list(self._entries(shard))
            if len(self._listed) > _SHARDS_KEPT:
                self._listed.popitem(last=False)
        self._listed.move_to_end(shard)
        return self._listed[shard]

    def _caption(self, sample: TarSample) -> str:
        key = self._config.caption_key
        if key is None:
            return _first_member(sample, TEXT_EXTENSIONS).decode("utf-8", errors="replace")
        try:
            fields = json.loads(_first_member(sample, ("json",)))
        except ValueError as error:
            raise SampleRefused("not_json", str(error)) from error
        if not isinstance(fields, dict) or not isinstance(fields.get(key), str):
            raise SampleRefused("missing_key", f"no text under '{key}' in its .json")
        return str(fields[key])


def _first_member(sample: TarSample, extensions: tuple[str, ...]) -> bytes:
    for extension in extensions:
        if extension in sample.members:
            return sample.read(extension)
    wanted = " or ".join(f".{extension}" for extension in extensions)
    cause: Cause = "missing_image" if extensions == IMAGE_EXTENSIONS else "missing_key"
    raise SampleRefused(cause, f"has {sorted(sample.members)}, no {wanted}")


def _label(shard: str, base: Path) -> str:
    """A shard's name in keys: where it lies under the datasets folder, so that the folder may move."""
    path = Path(shard)
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
