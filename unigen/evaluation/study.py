# SPDX-License-Identifier: Apache-2.0
"""A study: several ways to draw the same prompts, or to answer the same questions, each perhaps trained from several seeds,
scored side by side and in pairs."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from unigen.errors import EvaluationError
from unigen.evaluation.geneval.summary import Graded, estimate_tags, present_tags
from unigen.evaluation.records import read_records
from unigen.evaluation.statistics import Estimate, estimate
from unigen.evaluation.vqa_shapes import LOOKING

QUESTIONS = "questions"
"""The one tag of all answers."""


def graded_drawings(folder: Path) -> list[Graded]:
    """The verdicts over the images of a GenEval, by prompt and tag."""
    records = _records(folder, "drawings")
    return [Graded(int(key.partition("/")[0]), one["tag"], one["correct"]) for key, one in sorted(records.items())]


def graded_answers(folder: Path) -> list[Graded]:
    """The verdicts over the answers of `vqa_shapes`; the questions about one image are a cluster."""
    records = sorted(_records(folder, "answers").items())
    looking = [one for key, one in records if int(key.rpartition("/")[2]) == LOOKING]
    return [Graded(one["image"], QUESTIONS, one["correct"]) for one in looking]


@dataclass(frozen=True)
class Arm:
    """One way to draw or to answer: the verdicts, one sequence a training seed."""

    name: str
    seeds: Sequence[Sequence[Graded]]

    @classmethod
    def read(cls, name: str, folders: Sequence[Path], grade: Callable[[Path], list[Graded]] = graded_drawings) -> "Arm":
        """From the records of a benchmark's folders, one a training seed.

        Raises:
            EvaluationError: a folder without records, or folders over different prompts.
        """
        seeds = [grade(folder) for folder in folders]
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

    def verdicts(self) -> dict[tuple[str, int | str], list[bool]]:
        """All that was said of each prompt, by tag and prompt."""
        found: dict[tuple[str, int | str], list[bool]] = defaultdict(list)
        for one in self.graded:
            found[one.tag, one.prompt].append(one.correct)
        return found


def difference(first: Arm, second: Arm) -> Estimate:
    """Score of `first` minus score of `second`, with a bootstrap over the prompts, or the images asked about, that both had.

    Raises:
        EvaluationError: they have drawn different prompts.
    """
    ours, theirs = first.verdicts(), second.verdicts()
    if ours.keys() != theirs.keys():
        raise EvaluationError(f"{first.name} and {second.name} were scored on different prompts; evaluate both again")
    strata: dict[str, list[list[float]]] = defaultdict(list)
    for (tag, prompt), values in ours.items():
        # As often as there are verdicts: an image with three questions counts three times, as in the score.
        strata[tag].append([fmean(values) - fmean(theirs[tag, prompt])] * len(values))
    return estimate(*strata.values())


def described(found: Estimate) -> dict[str, float]:
    """An estimate as a report says it."""
    return {"mean": found.value, "low": found.low, "high": found.high}


def verdict(found: Mapping[str, float]) -> int:
    """1 where a difference is above 0, -1 where it is below, 0 where neither could be shown."""
    return (found["low"] > 0) - (found["high"] < 0)


def signed(found: Mapping[str, float]) -> str:
    """`+0.031 (+0.010 to +0.052)`."""
    return f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


def elapsed(path: Path) -> float:
    """Seconds since a study began, by the note that its script leaves in the folder; 0 without one."""
    note = path / "started"
    return round(time.time() - float(note.read_text(encoding="utf-8")), 1) if note.is_file() else 0.0


def _records(folder: Path, what: str) -> Mapping[str, Any]:
    records = read_records(folder)
    if not records:
        raise EvaluationError(f"{folder} holds no records of {what}; run `unigen evaluate` into it")
    return records
