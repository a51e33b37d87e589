# SPDX-License-Identifier: Apache-2.0
"""Images of prompts to choose among: `<id>_<sample>.png`, each from a seed of its own."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unigen.annotation.prompts import Prompt
from unigen.annotation.step import Done, Failed, StepWithoutFiles, Unit
from unigen.errors import DataError
from unigen.generation.pipeline import DrawRequest, Pipeline
from unigen.generation.png import is_whole_image, write_png
from unigen.generation.seeds import image_seed

LIST_NAME = "candidates.jsonl"
_NAME = re.compile(r"(.+)_(\d+)\.(png|jpe?g|webp)", re.IGNORECASE)


class Candidates(StepWithoutFiles):
    """Several images of each prompt, drawn by a model."""

    name = "candidates"

    def __init__(
        self,
        prompts: Sequence[Prompt],
        prompts_sha256: str,
        pipeline: Pipeline,
        folder: Path,
        *,
        num_images: int,
        seed: int,
        batch_size: int,
        drawing: Mapping[str, Any],
    ) -> None:
        self._prompts, self._sha256, self._pipeline, self._folder = prompts, prompts_sha256, pipeline, folder
        self._model = pipeline.describe()  # hashes the weights, so once
        self._num_images, self._seed, self._batch_size, self._drawing = num_images, seed, batch_size, dict(drawing)

    def identity(self) -> Mapping[str, Any]:
        return {
            "prompts": self._sha256,
            "num_prompts": len(self._prompts),
            "num_images": self._num_images,
            "seed": self._seed,
            "drawing": self._drawing,
            "weights": self._model.get("weights", {}),
            "dtype": self._model.get("dtype"),
        }

    def notes(self) -> Mapping[str, Any]:
        return {"model": self._model}

    def units(self) -> Sequence[Unit]:
        return [
            Unit(f"{prompt.id}_{sample}", DrawRequest(prompt.text, image_seed(self._seed, prompt.id, sample)))
            for prompt in self._prompts
            for sample in range(self._num_images)
        ]

    def is_there(self, unit: Unit) -> bool:
        return is_whole_image(self._folder / f"{unit.name}.png")

    def work(self, units: Sequence[Unit]) -> Iterator[Done | Failed]:
        requests = [unit.content for unit in units]
        images = self._pipeline.draw_requests(requests, batch_size=self._batch_size, **self._drawing)
        for unit, request, image in zip(units, requests, images, strict=True):
            made_with = {"prompt": request.prompt, "seed": request.seed, "model": self._pipeline.name, **self._drawing}
            write_png(image, self._folder / f"{unit.name}.png", made_with)
            name, _, sample = unit.name.rpartition("_")
            line = {"id": name, "sample": int(sample), "filename": f"{unit.name}.png", "prompt": request.prompt}
            yield Done(unit, [{**line, "seed": request.seed}])


def find_candidates(folder: Path) -> dict[str, list[Path]]:
    """The images of a folder by the id in their names, in the order of their numbers.

    Raises:
        DataError: no such folder, or no image of such a name in it.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder of images {folder}")
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.iterdir():
        if named := _NAME.fullmatch(path.name):
            found.setdefault(named[1], []).append((int(named[2]), path))
    if not found:
        raise DataError(f"{folder} holds no image named <id>_<number>.png")
    return {name: [path for _, path in sorted(numbered)] for name, numbered in found.items()}


def folder_hash(images: Mapping[str, Sequence[Path]]) -> str:
    """SHA-256 over the names and sizes of images: tells one set from another without reading them."""
    sizes = sorted(f"{path.name} {path.stat().st_size}" for paths in images.values() for path in paths)
    return hashlib.sha256("\n".join(sizes).encode()).hexdigest()
