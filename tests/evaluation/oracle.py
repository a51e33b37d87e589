# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a model: draws and answers from the world's own files, wrong in chosen cases."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from unigen.data.shapes.render import render
from unigen.data.shapes.scene import Scene
from unigen.evaluation.prompt_scenes import scene_for
from unigen.generation.pipeline import AskRequest, DrawRequest, Pipeline


class Oracle(Pipeline):
    """Draws an empty image for every `wrong_every`-th request, and answers `unsure` to every such question.

    `drawn` and `asked` count what it was asked for; `stop_after` makes it break off.
    """

    name = "oracle"

    def __init__(self, world: Path, *, wrong_every: int = 0, stop_after: int | None = None, weights: str = "0") -> None:
        evaluation = world / "evaluation"
        prompts = [json.loads(line) for line in (evaluation / "geneval_shapes.jsonl").read_text().splitlines()]
        questions = [json.loads(line) for line in (evaluation / "vqa_shapes.jsonl").read_text().splitlines()]
        self._prompts = {prompt["prompt"]: prompt for prompt in prompts}
        self._answers = {
            (Image.open(evaluation / one["image"]).tobytes(), one["question"]): one["answer"] for one in questions
        }
        self._wrong_every, self._stop_after, self._weights = wrong_every, stop_after, weights
        self.drawn: list[DrawRequest] = []
        self.num_asked = 0

    def draw_requests(
        self,
        requests: Iterable[DrawRequest],
        *,
        batch_size: int = 16,
        on_step: Callable[[int], None] = lambda step: None,
        **settings: Any,
    ) -> Iterator[Image.Image]:
        for request in requests:
            if self._stop_after is not None and len(self.drawn) >= self._stop_after:
                raise KeyboardInterrupt
            self.drawn.append(request)
            is_wrong = self._wrong_every and len(self.drawn) % self._wrong_every == 0
            scene = scene_for(self._prompts[request.prompt], np.random.default_rng(request.seed))
            yield render(Scene(scene.tag, ()) if is_wrong else scene, 32)

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        for request in requests:
            self.num_asked += 1
            answer = self._answers.get((request.images[0].tobytes(), request.question), "unsure")
            is_wrong = self._wrong_every and self.num_asked % self._wrong_every == 0
            yield "unsure" if is_wrong else f" {answer.title()}."

    def reconstruct(self, images: Sequence[Image.Image], *, batch_size: int = 16) -> list[Image.Image] | None:
        return [image.filter(ImageFilter.GaussianBlur(0.5)) for image in images]

    def describe(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "family": "oracle",
            "num_parameters": 0,
            "image_resolution": 32,
            "num_image_codes": 16,
            "weights": {"model": self._weights},
        }
