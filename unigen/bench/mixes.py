# SPDX-License-Identifier: Apache-2.0
"""Rows of the lengths that the stages of UniGen-1.5B see, with made-up content.

The stages' row lengths and samples per step are those of configs/unigen_1_5b. The lengths of texts are an assumption, since
the data are not here: log-normal ones, taken at even quantiles, so that a few samples have the mix of many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch

from unigen.bench.models import NUM_CODES, random_text
from unigen.config.schema import TASKS
from unigen.data.batch import CodeImage, Sample
from unigen.sequence.layout import Document, Segment, Supervision, Visibility, codes, features, text
from unigen.sequence.mask_schedule import draw_mask
from unigen.sequence.vocabulary import Vocabulary

HEADER_TOKENS = 9
"""Fixed words around a caption or before an answer."""
QUESTION_TOKENS = 15
FEATURE_SIZE = 64
"""Width of made-up vision features."""


@dataclass(frozen=True)
class Texts:
    """Lengths of texts in tokens: log-normal, cut at `most`."""

    median: float
    spread: float
    """Standard deviation of the logarithm."""
    most: int

    def lengths(self, count: int) -> list[int]:
        normal = NormalDist()
        quantiles = [(number + 0.5) / count for number in range(count)]
        found = [self.median * math.exp(self.spread * normal.inv_cdf(quantile)) for quantile in quantiles]
        return [min(max(1, round(length)), self.most) for length in found]


@dataclass(frozen=True)
class Mix:
    """The samples of one GPU in one global step."""

    name: str
    row_length: int
    """What the released code pads every row to."""
    counts: dict[str, int]
    """Samples of each task."""
    texts: dict[str, Texts]
    num_features: int = 0
    """Vision features of an image that is read; 0 reads through codes."""
    num_codes: int = NUM_CODES

    def samples(self, vocabulary: Vocabulary, seed: int, steps: int = 1) -> list[Sample]:
        """The samples of `steps` such steps, with codes computed ahead, in an order mixed by the seed."""
        generator = torch.Generator().manual_seed(seed)
        found = [self._sample(task, length, vocabulary, generator) for task, length in self._plan(steps)]
        return [found[index] for index in torch.randperm(len(found), generator=generator).tolist()]

    def _plan(self, steps: int) -> Iterator[tuple[str, int]]:
        for task, count in self.counts.items():
            yield from ((task, length) for length in self.texts[task].lengths(count * steps))

    def _sample(self, task: str, length: int, vocabulary: Vocabulary, generator: torch.Generator) -> Sample:
        words = random_text(vocabulary, length, generator)
        header = random_text(vocabulary, HEADER_TOKENS, generator)
        images: tuple[CodeImage, ...] = ()
        seen: tuple[torch.Tensor, ...] = ()
        if task == "t2i":
            images = (self._image(vocabulary, generator, is_drawn=True),)
            segments = [text(header + words), *self._marked_codes(vocabulary, Visibility.BLOCK, Supervision.MASKED)]
        elif task == "lm":
            segments = [text(words, supervision=Supervision.NEXT_TOKEN)]
        else:
            segments = self._seen_image(vocabulary)
            if self.num_features:
                seen = (torch.randn(self.num_features, FEATURE_SIZE, generator=generator),)
            else:
                images = (self._image(vocabulary, generator, is_drawn=False),)
            question = random_text(vocabulary, QUESTION_TOKENS, generator)
            segments += [text(header + question), text(words, supervision=Supervision.NEXT_TOKEN)]
        number = [*TASKS].index(task)  # type: ignore[arg-type]  # a task's name
        return Sample(task, Document(number, tuple(segments)), images, seen)

    def _seen_image(self, vocabulary: Vocabulary) -> list[Segment]:
        if self.num_features:
            return [text([vocabulary.message_start]), features(self.num_features, visibility=Visibility.OPEN)]
        return self._marked_codes(vocabulary, Visibility.OPEN, Supervision.NONE)

    def _marked_codes(self, vocabulary: Vocabulary, visibility: Visibility, supervision: Supervision) -> list[Segment]:
        return [
            text([vocabulary.start_of_image], visibility=visibility),
            codes(self.num_codes, visibility=visibility, supervision=supervision),
            text([vocabulary.end_of_image], visibility=visibility),
        ]

    def _image(self, vocabulary: Vocabulary, generator: torch.Generator, *, is_drawn: bool) -> CodeImage:
        content_I = torch.randint(vocabulary.codebook_size, (self.num_codes,), generator=generator).numpy()
        if not is_drawn:
            return CodeImage(content_I)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        return CodeImage(content_I, draw_mask(np.random.default_rng(seed), self.num_codes, "cosine"))


def features_of(images: Sequence[object]) -> torch.Tensor | None:
    """The features (K, F) of made-up images one after another; None where there are none."""
    found = [image for image in images if isinstance(image, torch.Tensor)]
    return torch.cat(found) if found else None


PT1 = Mix(
    "pt1",
    row_length=128 + 256 + 3,
    counts={"t2i": 16, "mmu": 8},
    texts={"t2i": Texts(60, 0.5, 119), "mmu": Texts(60, 0.5, 104)},
)
PT2 = Mix(
    "pt2",
    row_length=576 + 256 + 3,
    counts={"t2i": 8, "lm": 2, "mmu": 6},
    texts={"t2i": Texts(185, 0.4, 567), "lm": Texts(400, 0.9, 835), "mmu": Texts(185, 0.4, 552)},
)
"""Captions of about 200 tokens."""
SFT = Mix(
    "sft",
    row_length=1344 + 256 + 3,
    counts={"t2i": 3, "lm": 1, "mmu": 4},
    texts={"t2i": Texts(50, 0.4, 567), "lm": Texts(400, 0.9, 1603), "mmu": Texts(150, 0.7, 848)},
    num_features=729,
)
"""Rows that are drawn (about 320 tokens) beside conversations with a text budget of 1,344."""
