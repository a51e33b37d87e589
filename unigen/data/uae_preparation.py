# SPDX-License-Identifier: Apache-2.0
"""From a decoded record to what the stages of UAE take: an image to be drawn from its caption, or a chat about images."""

from dataclasses import dataclass

import numpy as np

from unigen.config.schema import TASKS
from unigen.data.batch import Drawing, Sample
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.images import square_pixels
from unigen.data.sample import RawSample
from unigen.sequence.layout import Document
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
