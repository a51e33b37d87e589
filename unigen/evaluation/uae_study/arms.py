# SPDX-License-Identifier: Apache-2.0
"""The models of a study of UAE that are compared: what each made of the held-out images, one evaluation a training seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from unigen.data.shapes.caption_reading import CaptionAccuracy, caption_accuracy, claimed_objects
from unigen.errors import EvaluationError
from unigen.evaluation.items import read_entries
from unigen.evaluation.run import read_results
from unigen.evaluation.statistics import Estimate, clustered, estimate

BENCHMARK, LINES_NAME = "unified_bench", "images.jsonl"
KEYS = ("name", "image", "caption", "reconstruction", "similarity")
"""Of a line of the benchmark's `images.jsonl`."""
BEFORE, AFTER_UNDERSTANDING, AFTER_GENERATION, CONTROL = "before", "after_understanding", "after_generation", "control"
ARMS = {
    BEFORE: "evaluation/before",
    AFTER_UNDERSTANDING: "seed-*/evaluation/after_understanding",
    AFTER_GENERATION: "seed-*/evaluation/after_generation",
    CONTROL: "seed-*/evaluation/control",
}
"""Where the evaluations of each lie. The first was trained once: what all seeds went on from."""


@dataclass(frozen=True)
class Redrawing:
    """One image, what was said of it, and what was drawn from that."""

    original: Path
    caption: str
    true_caption: str
    """The world's own, which names every object."""
    image: Path
    score: float
    """Similarity of the two images, a cosine; the mean over the encoders where several score."""

    @cached_property
    def accuracy(self) -> CaptionAccuracy:
        """Of the caption's objects."""
        return caption_accuracy(self.caption, claimed_objects(self.true_caption))


@dataclass(frozen=True)
class UaeArm:
    """A model: by image, what each training seed made of it."""

    name: str
    folders: Sequence[Path]
    """Of the evaluations."""
    seeds: Sequence[Mapping[str, Redrawing]]

    @classmethod
    def read(cls, name: str, path: Path) -> "UaeArm":
        """Raises EvaluationError where an evaluation is missing, or not of all images."""
        folders = sorted(path.glob(ARMS[name]))
        if not folders:
            raise EvaluationError(f"{path / ARMS[name]} is missing; run scripts/reproduce_uae_shapes.sh to the end")
        seeds = [_read_redrawings(folder / BENCHMARK) for folder in folders]
        for folder, found in zip(folders, seeds, strict=True):
            if found.keys() != seeds[0].keys():
                raise EvaluationError(f"{folder} is over other images than {folders[0]}; evaluate both again")
        return cls(name, folders, seeds)

    def values(self, measure: Callable[[Redrawing], float]) -> dict[str, list[float]]:
        """By image, one number a training seed."""
        return {key: [measure(seed[key]) for seed in self.seeds] for key in sorted(self.seeds[0])}

    @cached_property
    def results(self) -> list[Mapping[str, Any]]:
        """What results.json says of the benchmark, by evaluation."""
        return [(read_results(folder) or {}).get(BENCHMARK, {}) for folder in self.folders]

    @property
    def encoders(self) -> set[tuple[str, str]]:
        """Name, and hash of the weights, of each encoder that scored."""
        return {(name, one["weights"]) for result in self.results for name, one in result.get("encoders", {}).items()}


def mean_over_images(values: Mapping[str, Sequence[float]]) -> Estimate:
    """The mean over images and seeds, with a bootstrap over the images."""
    return estimate(clustered((key, value) for key, some in values.items() for value in some))


def differences(first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """`first` minus `second`, image by image and seed by seed; what all seeds went on from stands beside each of them."""
    num_seeds = max(map(len, first.values()))
    beside = {key: list(some) if len(some) == num_seeds else list(some) * num_seeds for key, some in second.items()}
    return {key: [one - other for one, other in zip(first[key], beside[key], strict=True)] for key in first}


def mean_by_seed(values: Mapping[str, Sequence[float]]) -> list[float]:
    """The mean over images of each training seed."""
    return [fmean(column) for column in zip(*values.values(), strict=True)]


def check_same_images(arms: Sequence[UaeArm]) -> None:
    """That all arms stand on the same images, and all but the first on the same seeds.

    Raises:
        EvaluationError: naming the arm.
    """
    first, *trained = arms
    for arm in trained:
        if arm.seeds[0].keys() != first.seeds[0].keys():
            raise EvaluationError(f"{arm.name} was scored on other images than {first.name}; evaluate both again")
        ours, theirs = ([folder.parent.parent.name for folder in one.folders] for one in (arm, trained[0]))
        if ours != theirs:
            raise EvaluationError(
                f"{arm.name} has {', '.join(ours)}, but {trained[0].name} has {', '.join(theirs)}; evaluate the same seeds"
            )


def _read_redrawings(folder: Path) -> dict[str, Redrawing]:
    lines = read_entries(
        folder / LINES_NAME, KEYS, f"run `unigen evaluate --benchmarks {BENCHMARK}` into {folder.parent}"
    )
    return {line["name"]: _redrawing(line) for line in lines}


def _redrawing(line: Mapping[str, Any]) -> Redrawing:
    original = Path(line["image"])
    truth = original.with_suffix(".txt")
    try:
        true_caption = truth.read_text(encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"{truth}, the true caption, cannot be read ({error.strerror}); score held-out images of shapes"
        ) from error
    score = fmean(line["similarity"].values())
    return Redrawing(original, line["caption"], true_caption, Path(line["reconstruction"]), score)
