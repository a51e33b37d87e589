# SPDX-License-Identifier: Apache-2.0
"""What learning from rewards brings: drawings of held-out prompts before and after, and after a control that must learn nothing.

It is told the evaluations (the folders that `unigen evaluate` wrote), one of before and one a training seed of after, and the
training runs. Images of the same item were drawn from the same noise before and after, so scores are compared in pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.data.json_files import write_json
from unigen.environment import git_commit
from unigen.errors import EvaluationError
from unigen.evaluation.comparison import labels_of
from unigen.evaluation.figures import metric_curves, score_chart
from unigen.evaluation.page import render
from unigen.evaluation.records import read_records
from unigen.evaluation.run_folder import StageLog, read_stage
from unigen.evaluation.showcase import data_uri
from unigen.evaluation.study import Arm, described, difference
from unigen.evaluation.tables import Score

BENCHMARK = "geneval_shapes"
JSON_NAME, PAGE_NAME, TEMPLATE = "report.json", "report.html", "policy.html.j2"
REWARD = "reward/total"
METRICS = (REWARD, "groups/without_spread", "policy/entropy", "policy/ratio_deviation")
PAIRS = {
    "after_minus_before": ("after", "before"),
    "control_minus_before": ("control", "before"),
    "after_minus_control": ("after", "control"),
}
NUM_SHOWN = 12


@dataclass(frozen=True)
class PolicyStudy:
    """The folders of a study, read."""

    arms: Mapping[str, Arm]
    """`before`, `after`, perhaps `control`."""
    runs: Sequence[StageLog]
    """The training runs, by the names of their folders."""
    before: Path
    after: Path
    """Whose images are shown."""

    @classmethod
    def read(
        cls, before: Path, after: Sequence[Path], control: Sequence[Path] = (), runs: Sequence[Path] = ()
    ) -> "PolicyStudy":
        """
        Args:
            before: the output of `unigen evaluate`, as all of `after` and `control`.
            runs: output folders of training.

        Raises:
            EvaluationError: a folder without records or without metrics, or evaluations over different prompts.
        """
        folders = {"before": [before], "after": after, "control": control}
        arms = {name: Arm.read(name, [one / BENCHMARK for one in some]) for name, some in folders.items() if some}
        logs = [one / "metrics.jsonl" for one in runs]
        for log in logs:
            if not log.is_file():
                raise EvaluationError(f"{log} is missing; name the experiment.output_dir of a training run")
        names = labels_of([str(one.resolve()) for one in runs]) if runs else []
        stages = [read_stage(name, log) for name, log in zip(names, logs, strict=True)]
        return cls(arms, stages, before / BENCHMARK, after[0] / BENCHMARK)

    def summary(self) -> dict[str, Any]:
        """What report.json says."""
        pairs = {name: both for name, both in PAIRS.items() if all(one in self.arms for one in both)}
        return {
            "stages": {name: {BENCHMARK: arm.summary()} for name, arm in self.arms.items()},
            "paired": {
                name: described(difference(self.arms[first], self.arms[second]))
                for name, (first, second) in pairs.items()
            },
            "reward": {
                stage.name: dict(zip(("steps", "values"), stage.curve(REWARD), strict=True)) for stage in self.runs
            },
            "num_seeds": len(self.arms["after"].seeds),
            "git_commit": git_commit(),
        }

    def gallery(self) -> list[dict[str, Any]]:
        """Images whose verdict changed, before and after, spread evenly over the prompts."""
        before, after = (read_records(folder) for folder in (self.before, self.after))
        changed = [
            key for key in sorted(before) if key in after and before[key]["correct"] is not after[key]["correct"]
        ]
        shown = [changed[index * len(changed) // NUM_SHOWN] for index in range(NUM_SHOWN)] if changed else []
        return [
            {
                "prompt": before[key]["prompt"],
                "before": _shown(self.before, before[key]),
                "after": _shown(self.after, after[key]),
            }
            for key in dict.fromkeys(shown)
        ]


def write_policy_report(study: PolicyStudy, folder: Path) -> dict[str, Any]:
    """Write report.json and report.html into a folder; returns the content of report.json."""
    summary = study.summary()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(summary, folder / JSON_NAME)
    scores = {name: found[BENCHMARK] for name, found in summary["stages"].items()}
    page = render(
        TEMPLATE,
        title=folder.resolve().name,
        summary=summary,
        benchmark=BENCHMARK,
        scores=scores,
        chart=score_chart(
            [Score("", name, found["mean"], (found["low"], found["high"])) for name, found in scores.items()]
        ),
        curves=metric_curves(study.runs, METRICS) if study.runs else None,
        runs=[stage.name for stage in study.runs],
        gallery=study.gallery(),
    )
    (folder / PAGE_NAME).write_text(page, encoding="utf-8")
    return summary


def _shown(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    image = folder / record["path"]
    if not image.is_file():
        raise EvaluationError(
            f"{image} is missing; the page shows images of both evaluations, so keep them beside the records"
        )
    return {"image": data_uri(image), "correct": record["correct"], "reason": record["reason"]}
