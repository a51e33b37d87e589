# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a model that knows its pictures by heart: a caption is a picture's name, a drawing the picture of that name."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from unigen.generation.pipeline import AskRequest, DrawRequest, Pipeline


class Redrawer(Pipeline):
    """Draws every picture as it is, or with `forgets` a grey one; `stop_after` makes it break off after so many drawings."""

    name = "redrawer"

    def __init__(self, pictures: Path, *, forgets: bool = False, stop_after: int | None = None) -> None:
        self._pictures = {path.stem: Image.open(path).convert("RGB") for path in sorted(pictures.rglob("*.png"))}
        self._forgets, self._stop_after = forgets, stop_after
        self.asked: list[AskRequest] = []
        self.drawn: list[DrawRequest] = []
        self.settings: dict[str, Any] = {}

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        self.settings = settings
        for request in requests:
            self.asked.append(request)
            pixels = request.images[0].tobytes()
            yield next(f"picture {name}" for name, image in self._pictures.items() if image.tobytes() == pixels)

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
            image = self._pictures[request.prompt.removeprefix("picture ")]
            yield Image.new("RGB", image.size, "grey") if self._forgets else image

    def describe(self) -> dict[str, Any]:
        return {"model": self.name, "family": "uae", "weights": {"model": "0"}, "device": "cpu"}
