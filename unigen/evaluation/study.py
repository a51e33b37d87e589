# SPDX-License-Identifier: Apache-2.0
"""A study: several ways to draw the same prompts, each perhaps trained from several seeds, scored side by side and in pairs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from unigen.errors import EvaluationError
from unigen.evaluation.geneval.summary import Graded, estimate_tags, present_tags
from unigen.evaluation.records import read_records
from unigen.evaluation.statistics import Estimate, estimate


@dataclass(frozen=True)
class Arm:
    """One way to draw: the verdicts over its images, one sequence a training seed."""

    name: str
    seeds: Sequence[Sequence[Graded]]

    @classmethod
    def read(cls, name: str, folders: Sequence[Path]) -> "Arm":
        """From the records of a benchmark's folders, one a training seed.

        Raises:
            EvaluationError: a folder without records, or folders over different prompts.
        """
        seeds = [_graded(folder) for folder in folders]
        prompts = [{one.prompt for one in graded} for graded in seeds]
        for folder, found in zip(folders, prompts, strict=True):
            if found != prompts[0]:
                raise EvaluationError(f"{folder} is over other prompts than {folders[0]}; evaluate both again")
        return cls(name, seeds)

    @property
    def graded(self) -> list[Graded]:
        return [one for graded in self.seeds for one in graded]

    @property
    def tags(self) -> list[str]:
        return present_tags(self.graded)

    @property
    def score(self) -> Estimate:
        """Mean over tags of the share of right images, over all seeds; the images of one prompt are a cluster."""
        return estimate_tags(self.graded, self.tags)

    def summary(self) -> dict[str, Any]:
        """The score, by tag and by training seed."""
        return {
            **described(self.score),
            "tags": {tag: estimate_tags(self.graded, [tag]).value for tag in self.tags},
            "seeds": [estimate_tags(graded, self.tags).value for graded in self.seeds],
        }

    def means(self) -> dict[tuple[str, int], float]:
        """Share of right images by tag and prompt."""
        found: dict[tuple[str, int], list[bool]] = defaultdict(list)
        for one in self.graded:
            found[one.tag, one.prompt].append(one.correct)
        return {key: fmean(values) for key, values in found.items()}


def difference(first: Arm, second: Arm) -> Estimate:
    """Score of `first` minus score of `second`, with a bootstrap over the prompts that both have drawn.

    Raises:
        EvaluationError: they have drawn different prompts.
    """
    ours, theirs = first.means(), second.means()
    if ours.keys() != theirs.keys():
        raise EvaluationError(f"{first.name} and {second.name} were scored on different prompts; evaluate both again")
    strata: dict[str, list[list[float]]] = defaultdict(list)
    for (tag, prompt), value in ours.items():
        strata[tag].append([value - theirs[tag, prompt]])
    return estimate(*strata.values())


def described(found: Estimate) -> dict[str, float]:
    """An estimate as a report says it."""
    return {"mean": found.value, "low": found.low, "high": found.high}


def _graded(folder: Path) -> list[Graded]:
    records: Mapping[str, Any] = read_records(folder)
    if not records:
        raise EvaluationError(f"{folder} holds no records of drawings; run `unigen evaluate` into it")
    return [Graded(int(key.partition("/")[0]), one["tag"], one["correct"]) for key, one in sorted(records.items())]
