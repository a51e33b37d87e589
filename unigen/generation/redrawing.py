# SPDX-License-Identifier: Apache-2.0
"""Image -> caption -> image: what a model makes of a picture when all that is left of it are the model's own words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unigen.generation.pipeline import AskRequest, DrawRequest, Pipeline, in_batches


@dataclass(frozen=True)
class Redrawn:
    """A picture's caption, and what was drawn from it."""

    caption: str
    image: Image.Image


def redraw(
    pipeline: Pipeline,
    images: Sequence[Image.Image],
    seeds: Sequence[int],
    *,
    request: str | None = None,
    batch_size: int = 16,
    captioning: Mapping[str, Any] | None = None,
    drawing: Mapping[str, Any] | None = None,
) -> Iterator[Redrawn]:
    """Captions and drawings of images, in order, as batches get done.

    Args:
        seeds: one an image, for its caption and its drawing.
        request: what asks for a caption; None takes the family's own words.
        captioning: settings of writing, as the family takes them.
        drawing: settings of drawing.
    """
    asked = pipeline.caption_request if request is None else request
    for batch in in_batches(zip(images, seeds, strict=True), batch_size):
        questions = [AskRequest(asked, (image,), seed=seed) for image, seed in batch]
        captions = list(pipeline.ask_requests(questions, batch_size=batch_size, **(captioning or {})))
        prompts = [DrawRequest(caption, seed) for caption, (_, seed) in zip(captions, batch, strict=True)]
        drawn = pipeline.draw_requests(prompts, batch_size=batch_size, **(drawing or {}))
        for caption, image in zip(captions, drawn, strict=True):
            yield Redrawn(caption, image)
