# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a model that draws what prompts of the world of shapes ask for, and every third time something else."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from unigen.data.shapes.render import render
from unigen.data.shapes.scene import sample_any_scene
from unigen.evaluation.prompt_scenes import scene_for
from unigen.generation.pipeline import AskRequest, DrawRequest, Pipeline


class Painter(Pipeline):
    """Draws by the request's seed alone; `stop_after` makes it break off, `num_drawn` counts."""

    name = "painter"

    def __init__(self, entries: Sequence[Mapping[str, Any]], stop_after: int | None = None) -> None:
        self._entries = {entry["prompt"]: entry for entry in entries}
        self._stop_after = stop_after
        self.num_drawn = 0

    def draw_requests(
        self,
        requests: Iterable[DrawRequest],
        *,
        batch_size: int = 16,
        on_step: Callable[[int], None] = lambda step: None,
        **settings: Any,
    ) -> Iterator[Image.Image]:
        for request in requests:
            if self.num_drawn == self._stop_after:
                raise KeyboardInterrupt
            self.num_drawn += 1
            rng = np.random.default_rng(request.seed)
            is_wrong = request.seed % 3 == 0
            entry = self._entries[request.prompt]
            yield render(sample_any_scene(entry["tag"], rng) if is_wrong else scene_for(entry, rng), 32)

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        for request in requests:
            yield f"{'Yes' if request.images else 'No'}, {request.question}"

    def describe(self) -> dict[str, Any]:
        return {"model": self.name, "weights": {"model": "0"}, "dtype": "none"}
