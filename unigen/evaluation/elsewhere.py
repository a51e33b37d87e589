# SPDX-License-Identifier: Apache-2.0
"""Images that were drawn elsewhere, in the place of a model: they can be scored, but nothing can be asked of them."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from unigen.errors import EvaluationError
from unigen.evaluation.families import IMAGES
from unigen.generation.pipeline import AskRequest, DrawRequest, Pipeline


class ImageFolder(Pipeline):
    """Stands where a benchmark expects a model when `--images` names a folder.

    Args:
        device: where judges run; each rank's own when not given.
    Raises:
        EvaluationError: there is no such folder, or something is asked of it.
    """

    def __init__(self, folder: Path, device: str | None = None) -> None:
        if not folder.is_dir():
            raise EvaluationError(f"--images {folder}: there is no such folder")
        self.name, self._device = str(folder), device

    def describe(self) -> dict[str, Any]:
        said = {"model": self.name, "family": IMAGES, "weights": {IMAGES: str(Path(self.name).resolve())}}
        return said if self._device is None else {**said, "device": self._device}

    def draw_requests(
        self,
        requests: Iterable[DrawRequest],
        *,
        batch_size: int = 16,
        on_step: Callable[[int], None] = lambda step: None,
        **settings: Any,
    ) -> Iterator[Image.Image]:
        raise EvaluationError(f"{self.name} is a folder of images and cannot draw; give a model with --model")

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        raise EvaluationError(f"{self.name} is a folder of images and cannot answer; give a model with --model")
