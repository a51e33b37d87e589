# SPDX-License-Identifier: Apache-2.0
"""From a decoded record to what the stages of UAE take: an image to be drawn from its caption, or a chat about images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from unigen.config.schema import TASKS
from unigen.data.batch import Drawing, Sample
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.images import square_pixels
from unigen.data.preparation import ImagePreparer, exchanges
from unigen.data.sample import RawSample
from unigen.sequence.layout import Document, Supervision, text
from unigen.sequence.templates.uae import UaeTemplate

LARGEST_SEED = 2**63


@dataclass(frozen=True)
class DrawingPreparer:
    """Images to be drawn along a flow, each with the words to draw it from, or with the null of guidance in their place."""

    template: UaeTemplate
    resolution: int
    max_text_tokens: int
    null_prompt: str | None
    """The words that stand in the place of a dropped caption; None: zeros do."""
    prompt_drop_prob: float = 0.0

    def __call__(self, raw: RawSample, draws: Draws) -> Sample:
        is_dropped = draws.generator("prompt drop").uniform() < self.prompt_drop_prob
        words = self.null_prompt if is_dropped and self.null_prompt is not None else raw.text
        ids = self.template.draw_prompt(words)
        if len(ids) > self.max_text_tokens:
            raise SampleRefused(
                "too_long", f"{len(ids)} tokens, more than model.max_text_tokens={self.max_text_tokens}"
            )
        noise, time = draws.generator("noise"), draws.generator("time")
        drawing = Drawing(
            prompt_ids=np.array(ids, dtype=np.int64),
            is_blank=is_dropped and self.null_prompt is None,
            seed=int(noise.integers(LARGEST_SEED)),
            time_normal=float(time.standard_normal()),
        )
        pixels_3HW = square_pixels(raw.images[0], self.resolution)
        document = Document(TASKS.index(raw.task), ())
        return Sample(raw.key, document, target_image=pixels_3HW, caption=raw.text, drawing=drawing)


@dataclass(frozen=True)
class SeededImagePreparer:
    """Square images to be rebuilt, each with a seed for the noise of its latents."""

    resolution: int

    def __call__(self, raw: RawSample, draws: Draws) -> Sample:
        seed = int(draws.generator("noise").integers(LARGEST_SEED))
        plain = ImagePreparer(self.resolution)(raw, draws)
        return replace(plain, drawing=Drawing(np.empty(0, dtype=np.int64), seed=seed))


@dataclass(frozen=True)
class SeenImage:
    """An image as Qwen2.5-VL reads it.

    Legend: P patches, D numbers of a patch.
    """

    patches_PD: Tensor
    grid_thw: tuple[int, int, int]
    """Patches in time, height and width."""


@dataclass(frozen=True)
class ChatPreparer:
    """Chats about images, whose answers are learnt."""

    template: UaeTemplate
    processor: Any
    max_text_tokens: int
    """Of the words, without the tokens of the images."""

    def __call__(self, raw: RawSample, draws: Draws) -> Sample:
        seen = tuple(self._see(image) for image in raw.images)
        segments, num_words = [], 0
        lengths = iter([self._num_tokens(image) for image in seen])
        for words, is_answer in self.template.dialogue(exchanges(raw.turns), len(seen)):
            ids = self._ids(words)
            num_words += len(ids)
            supervision = Supervision.NEXT_TOKEN if is_answer else Supervision.NONE
            segments.append(text(self._with_images(ids, lengths), supervision=supervision))
        if num_words > self.max_text_tokens:
            raise SampleRefused(
                "too_long", f"{num_words} tokens, more than model.max_text_tokens={self.max_text_tokens}"
            )
        return Sample(raw.key, Document(TASKS.index(raw.task), tuple(segments)), feature_images=seen)

    def _see(self, image: Image.Image) -> SeenImage:
        found = self.processor.image_processor(images=[image], return_tensors="pt")
        frames, height, width = found["image_grid_thw"][0].tolist()
        return SeenImage(found["pixel_values"], (frames, height, width))

    def _num_tokens(self, image: SeenImage) -> int:
        return math.prod(image.grid_thw) // self.processor.image_processor.merge_size**2

    def _ids(self, words: str) -> list[int]:
        found: list[int] = self.processor.tokenizer.encode(words, add_special_tokens=False)
        return found

    def _with_images(self, ids: list[int], lengths: Iterator[int]) -> list[int]:
        """Every mark of an image as many times as the image has tokens."""
        mark = self.processor.image_token_id
        return [one for token in ids for one in ([token] * next(lengths) if token == mark else [token])]
