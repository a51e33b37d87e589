# SPDX-License-Identifier: Apache-2.0
"""What a benchmark is given, and what it has to be."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from unigen.evaluation.items import Item, share
from unigen.evaluation.ranks import Ranks
from unigen.generation.pipeline import Pipeline

E = TypeVar("E")


@dataclass(frozen=True)
class Options:
    """How to evaluate; the same for every benchmark."""

    output: Path
    world: Path
    """Folder of the world of shapes, whose `evaluation/` holds prompts and questions."""
    seed: int = 0
    num_images: int = 4
    """Images of each prompt."""
    batch_size: int = 16
    drawing: dict[str, Any] = field(default_factory=dict)
    """Settings of drawing that differ from the family's defaults."""


@dataclass(frozen=True)
class Job:
    """One benchmark's work for one rank."""

    pipeline: Pipeline
    options: Options
    folder: Path
    """Where this benchmark keeps its files."""
    model: dict[str, Any]
    """What the pipeline says of itself."""
    ranks: Ranks = field(default_factory=Ranks)

    def identity(self, prompts_sha256: str, **settings: Any) -> dict[str, Any]:
        """All that this benchmark's files depend on; a folder with another identity is not added to."""
        weights = self.model.get("weights", {})
        dtype = self.model.get("dtype")
        return {"weights": weights, "dtype": dtype, "seed": self.options.seed, "prompts": prompts_sha256, **settings}

    def share(self, items: Sequence[Item]) -> list[Item]:
        """What of `items` is this rank's to do."""
        return share(items, self.ranks.rank, self.ranks.world_size)

    def progress(self, steps: Iterable[E], total: int, what: str) -> Iterable[E]:
        """The same steps, with a bar on the first rank's stderr."""
        return tqdm(steps, total=total, desc=what, unit="item", disable=not self.ranks.is_first or total == 0)


class Benchmark(Protocol):
    """One benchmark. Everything that it keeps between the two calls lies in the job's folder."""

    name: str

    def run(self, job: Job) -> list[str]:
        """Do what is not done yet of this rank's share; returns one line for each item that failed."""
        ...

    def score(self, job: Job) -> dict[str, Any]:
        """The scores of a complete folder, by key of results.json.

        Raises:
            EvaluationError: items are missing.
        """
        ...
