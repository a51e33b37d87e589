# SPDX-License-Identifier: Apache-2.0
"""What a source makes of the words that come with an image: a caption or the name of a class to draw from, an answer to what asks
for it, or a conversation."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from unigen.config.schema import SourceConfig
from unigen.data.captions import class_sentence, clean_caption, load_class_templates, load_prompts, refuse_cjk
from unigen.data.draws import Draws
from unigen.data.faults import Cause, SampleRefused
from unigen.data.records import Record
from unigen.data.sample import RawSample, Turn
from unigen.data.tars import TarSample
from unigen.data.turns import read_turns

IMAGE_EXTENSIONS = ("jpg", "png", "jpeg", "webp")
TEXT_EXTENSIONS = ("txt", "text", "caption")
KEPT_MEMBERS = {"txt": TEXT_EXTENSIONS, "json": ("json",)}
"""Members of a sample that hold words, and the extensions that each may have."""


class CaptionUse:
    """What becomes of the caption of an image, or of the name of its class."""

    def __init__(self, config: SourceConfig) -> None:
        """
        Raises:
            ConfigError: templates or prompts that cannot be read.
        """
        self._config = config
        self._templates = () if config.class_templates is None else load_class_templates(config.class_templates)
        self._prompts = load_prompts(config.caption_prompts) if config.task == "mmu" else ()

    def sample(
        self,
        record: Record,
        words: str,
        draws: Draws,
        images: Callable[[], tuple[Image.Image, ...]] = tuple,
        codes: tuple[np.ndarray, ...] = (),
    ) -> RawSample:
        """The sample of a record; its images are only made for usable words.

        Args:
            words: the caption, or with templates the name of a class.

        Raises:
            SampleRefused: no usable caption.
        """
        text = self._sentence(words, draws) if self._templates else self._caption(words, draws)
        if self._config.task == "t2i":
            return RawSample(record.key, "t2i", images=images(), text=text, codes=codes)
        prompt = self._prompts[int(draws.generator("caption_prompt").random() * len(self._prompts))]
        turns = (Turn("user", prompt), Turn("assistant", text))
        return RawSample(record.key, "mmu", images=images(), turns=turns, codes=codes)

    def _caption(self, caption: str, draws: Draws) -> str:
        short_prob = self._config.short_caption_prob if self._config.task == "t2i" else 0.0
        if self._config.skip_cjk:
            refuse_cjk(caption)
        return clean_caption(caption, lambda: draws.generator("caption"), short_prob=short_prob)

    def _sentence(self, name: str, draws: Draws) -> str:
        if not name.strip():
            raise SampleRefused("empty_caption", "the name of its class is empty")
        number = int(draws.generator("class_template").integers(len(self._templates)))
        return class_sentence(self._templates[number], " ".join(name.split()))


class MemberUse:
    """What becomes of the members of a sample in a shard: a caption, the name of a class, or a conversation."""

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
            return self._captions.sample(record, self._words(members), draws, images, codes)
        turns = read_turns(_json_field(members, key, list, "no list"))
        return RawSample(record.key, "mmu", images=images(), turns=turns, codes=codes)

    def _words(self, sample: TarSample) -> str:
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
