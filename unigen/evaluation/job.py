# SPDX-License-Identifier: Apache-2.0
"""What a benchmark is given, and what it has to be."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from unigen.config.evaluation import EvaluationConfig
from unigen.config.folders import find_model
from unigen.data.ranks import Ranks
from unigen.evaluation.items import Item, share
from unigen.evaluation.records import read_records, require_complete
from unigen.generation.pipeline import Pipeline, load_pipeline
from unigen.generation.steps import Decoding

E = TypeVar("E")


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationConfig):
    """How to evaluate: the settings, where files lie, and what is allowed. The same for every benchmark."""

    output: Path
    world: Path = Path("unigen_data/datasets/shapes")
    """Folder of the world of shapes, whose `evaluation/` holds prompts and questions."""
    data_root: Path = Path("unigen_data")
    """Where checkpoints and datasets are kept."""
    decoding: Decoding = "auto"
    """How the steps of drawing and writing are run; the pipeline was loaded so."""
    images: Path | None = None
    """Images drawn elsewhere, in the benchmark's own layout, which are scored in the place of the model's."""
    is_partial_allowed: bool = False
    """Whether a benchmark with missing or failed items is scored over the rest, and marked as partial."""

    @classmethod
    def of(cls, config: EvaluationConfig, **places: Any) -> "Options":
        """The options with the settings of `config`."""
        return cls(**{one.name: getattr(config, one.name) for one in fields(config)}, **places)

    @property
    def config(self) -> EvaluationConfig:
        """The settings alone."""
        return EvaluationConfig(**{one.name: getattr(self, one.name) for one in fields(EvaluationConfig)})


@dataclass(frozen=True)
class Finished:
    """The items of a benchmark that are done, each with its record, in order."""

    pairs: list[tuple[Item, dict[str, Any]]]
    is_partial: bool
    """Whether items are missing. What is said of the rest must say so."""

    @property
    def mark(self) -> dict[str, Any]:
        """What a partial result has to hold beside its scores; nothing for a whole one."""
        return {"partial": True} if self.is_partial else {}


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
    _models: dict[str, Pipeline] = field(default_factory=dict)
    """Other models that were loaded; running and scoring ask for the same ones."""

    def identity(self, prompts_sha256: str, **settings: Any) -> dict[str, Any]:
        """All that this benchmark's files depend on; a folder with another identity is not added to."""
        weights = self.model.get("weights", {})
        dtype = self.model.get("dtype")
        return {"weights": weights, "dtype": dtype, "seed": self.options.seed, "prompts": prompts_sha256, **settings}

    @property
    def device(self) -> str:
        """Where this rank's models run: that of the evaluated one."""
        return str(self.model.get("device") or self.ranks.own_device())

    def require_model(self, name: str) -> None:
        """Raises CheckpointError where there is no other model of this name to load."""
        find_model(name, self.options.data_root)

    def load_model(self, name: str) -> Pipeline:
        """Another model than the one that is evaluated, such as a judge, on this rank's device; each is loaded once."""
        if name not in self._models:
            self._models[name] = load_pipeline(name, data_root=self.options.data_root, device=self.device)
        return self._models[name]

    def share(self, items: Sequence[Item]) -> list[Item]:
        """What of `items` is this rank's to do."""
        return share(items, self.ranks.rank, self.ranks.world_size)

    def finished(self, benchmark: str, items: Sequence[Item]) -> Finished:
        """What is done of a benchmark's items, by all ranks.

        Raises:
            EvaluationError: items are missing and that is not allowed, or nothing is done.
        """
        records = read_records(self.folder)
        present = [item for item in items if item.item_id in records]
        is_partial = self.options.is_partial_allowed and 0 < len(present) < len(items)
        wanted = present if is_partial else items
        return Finished(list(zip(wanted, require_complete(benchmark, wanted, records), strict=True)), is_partial)

    def progress(self, steps: Iterable[E], total: int, what: str) -> Iterable[E]:
        """The same steps, with a bar on the first rank's stderr."""
        return tqdm(steps, total=total, desc=what, unit="item", disable=not self.ranks.is_first or total == 0)


class Benchmark(Protocol):
    """One benchmark. Everything that it keeps between the two calls lies in the job's folder."""

    name: str
    families: frozenset[str]
    """The families of models that it takes; IMAGES among them if it scores images that were drawn elsewhere."""

    def check(self, job: Job) -> None:
        """Look at all that can be known before anything is done.

        Raises:
            UnigenError: what it needs is not there or cannot work, or the folder is that of another run.
        """
        ...

    def run(self, job: Job) -> list[str]:
        """Do what is not done yet of this rank's share; returns one line for each item that failed."""
        ...

    def score(self, job: Job) -> dict[str, Any]:
        """The scores of a complete folder, by key of results.json.

        Raises:
            EvaluationError: items are missing.
        """
        ...


@dataclass(frozen=True)
class DrawnPrompt:
    """What a benchmark wants drawn."""

    item_id: str
    """What files call it."""
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the benchmark says of it."""


class DrawingBenchmark(Benchmark, Protocol):
    """A benchmark of drawings that takes images of its prompts in the place of the model's own (`Options.images`)."""

    def prompts(self, job: Job) -> list[DrawnPrompt]:
        """What is to be drawn, in the order of the items.

        Raises:
            EvaluationError: its files are not there.
        """
        ...

    def lay_out(self, job: Job, prompt: DrawnPrompt, images: Sequence[Path], folder: Path) -> None:
        """Put `num_images` images of a prompt into `folder` as `Options.images` is read."""
        ...
