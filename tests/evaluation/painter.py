# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a model of any prompt: draws noise that follows from the seed, and answers yes or no by the pixels."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from unigen.evaluation.dpg.self_test import KNOWN
from unigen.generation.pipeline import AskRequest, DrawRequest, Pipeline

SIDE = 8
KNOWN_ANSWERS = {known.text.rstrip("?"): "yes" if known.is_yes else "no" for known in KNOWN}
"""To the questions by which a judge is tested; they are not counted."""


def painted(seed: int) -> Image.Image:
    """The image of a seed."""
    pixels_HW3 = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels_HW3)


def verdict(image: Image.Image, question: str) -> str:
    """The painter's answer."""
    asked = question.partition("?")[0]  # whatever instruction follows
    return "no" if hashlib.sha256(image.tobytes() + asked.encode()).digest()[0] % 3 == 0 else "Yes."


class Painter(Pipeline):
    """Counts what it drew and answered; `dies_after` kills its own process, without warning, after so many of both."""

    name = "painter"

    def __init__(self, *, dies_after: int | None = None, row_length: int = 1000) -> None:
        self._dies_after, self._row_length = dies_after, row_length
        self.prompts: list[str] = []
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
            self._live_or_die()
            self.prompts.append(request.prompt)
            yield painted(request.seed)

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        for request in requests:
            known = KNOWN_ANSWERS.get(request.question.partition("?")[0])
            if known is None:
                self._live_or_die()
                self.num_asked += 1
            yield known or verdict(request.images[0], request.question)

    def num_beyond_row(self, prompt: str) -> int:
        return max(0, len(prompt) - self._row_length)

    def describe(self) -> dict[str, Any]:
        return {"model": self.name, "family": "unigen", "weights": {"model": "0"}, "device": "cpu"}

    def _live_or_die(self) -> None:
        if self._dies_after is not None and len(self.prompts) + self.num_asked >= self._dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
