# SPDX-License-Identifier: Apache-2.0
"""What preference optimisation and Best-of-N bring, as `scripts/reproduce_shapes.sh` lays it out:

<study>/started                       seconds since the epoch
<study>/sft/evaluation                geneval_shapes of the fine-tuned model
<study>/seed-*/dpo                    runs, with metrics.jsonl
<study>/seed-*/evaluation/dpo         geneval_shapes
<study>/seed-*/evaluation/cotv        geneval_shapes_cot: the first drawings, those the model chose, those the truth chose
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from unigen.data.json_files import write_json
from unigen.environment import git_commit
from unigen.errors import EvaluationError
from unigen.evaluation.figures import metric_curves, score_chart
from unigen.evaluation.page import render
from unigen.evaluation.records import read_records
from unigen.evaluation.run import read_results
from unigen.evaluation.run_folder import StageLog, read_stage
from unigen.evaluation.showcase import data_uri
from unigen.evaluation.study import Arm, described, difference, elapsed
from unigen.evaluation.tables import Score

BENCHMARK, CHOSEN = "geneval_shapes", "geneval_shapes_cot"
VERIFIER = "think"
ARMS = {
    "sft": f"sft/evaluation/{BENCHMARK}",
    "dpo": f"seed-*/evaluation/dpo/{BENCHMARK}",
    "cotv_first_of_n": f"seed-*/evaluation/cotv/{CHOSEN}/scores_origin",
    "cotv_best_of_n": f"seed-*/evaluation/cotv/{CHOSEN}/scores_selected_prompt_{VERIFIER}",
    "oracle_best_of_n": f"seed-*/evaluation/cotv/{CHOSEN}/scores_selected_prompt_oracle",
}
PAIRS = {
    "dpo_minus_sft": ("dpo", "sft"),
    "cotv_minus_dpo": ("cotv_first_of_n", "dpo"),
    "best_of_n_minus_first_of_n": ("cotv_best_of_n", "cotv_first_of_n"),
}
JSON_NAME, PAGE_NAME, TEMPLATE = "report.json", "report.html", "alignment.html.j2"
REWARD_ACCURACY = "preference/reward_accuracy"
PREFERENCE_METRICS = ("loss/preference", REWARD_ACCURACY, "preference/reward_margin", "preference/kl_estimate")
NUM_SHOWN = 10


@dataclass(frozen=True)
class AlignmentStudy:
    """The folder of a study, read."""

    path: Path
    arms: Mapping[str, Arm]
    verifiers: Sequence[Mapping[str, Any]]
    """What each seed's evaluation says of the verifier."""
    preferences: Sequence[StageLog]
    """The runs of preference optimisation."""

    @classmethod
    def read(cls, path: Path) -> "AlignmentStudy":
        """Raises EvaluationError where a part of the study is missing or damaged."""
        arms = {name: Arm.read(name, _folders(path, pattern)) for name, pattern in ARMS.items()}
        results = [read_results(folder) or {} for folder in _folders(path, "seed-*/evaluation/cotv")]
        verifiers = [found[CHOSEN]["verifiers"][VERIFIER] for found in results]
        runs = _folders(path, "seed-*/dpo")
        return cls(path, arms, verifiers, [read_stage(run.parent.name, run / "metrics.jsonl") for run in runs])

    def summary(self) -> dict[str, Any]:
        """What report.json says."""
        arms = self.arms
        accuracies = [fmean(stage.curve(REWARD_ACCURACY)[1][-5:]) for stage in self.preferences]
        return {
            "stages": {name: {BENCHMARK: arm.summary()} for name, arm in arms.items()},
            "paired": {
                name: described(difference(arms[first], arms[second])) for name, (first, second) in PAIRS.items()
            },
            "verifier": {
                **{key: _mean([one[key] for one in self.verifiers]) for key in ("balanced_accuracy", "auc")},
                "parse_failures": sum(one["parse_failures"] for one in self.verifiers),
                "num_rated": sum(one["num_rated"] for one in self.verifiers),
                "correct": fmean(one["correct"] for one in self.verifiers),
                "accepted": fmean(one["accepted"] for one in self.verifiers),
            },
            "dpo": {"reward_accuracy": fmean(accuracies)},
            "num_seeds": len(self.preferences),
            "seconds": {"total": elapsed(self.path)},
            "git_commit": git_commit(),
        }

    def gallery(self) -> list[dict[str, Any]]:
        """Prompts at which the model's choice is another image than the first, with both images and their verdicts."""
        folder = _folders(self.path, f"seed-*/evaluation/cotv/{CHOSEN}")[0]
        first, best = (_Drawings(folder, selection) for selection in ("origin", f"selected_prompt_{VERIFIER}"))
        differ = [key for key in sorted(first.records) if first.pixels(key) != best.pixels(key)]
        step = max(1, len(differ) // NUM_SHOWN)
        return [
            {"prompt": first.records[key]["prompt"], "first": first.shown(key), "best": best.shown(key)}
            for key in differ[::step][:NUM_SHOWN]
        ]


class _Drawings:
    """The images of one selection, and the verdicts over them."""

    def __init__(self, folder: Path, selection: str) -> None:
        self.records = read_records(folder / f"scores_{selection}")
        self._images = _folders(folder, f"t2i_samples_*_{selection}")[0]

    def pixels(self, key: str) -> str:
        return str(self.records[key]["pixels_sha256"])

    def shown(self, key: str) -> dict[str, Any]:
        record = self.records[key]
        image = self._images.joinpath(*Path(record["path"]).parts[-3:])
        return {"image": data_uri(image), "correct": record["correct"], "reason": record["reason"]}


def write_alignment_report(path: Path) -> dict[str, Any]:
    """Write report.json and report.html of a study; returns the content of report.json.

    Raises:
        EvaluationError: a part of the study is missing or damaged.
    """
    study = AlignmentStudy.read(path)
    summary = study.summary()
    write_json(summary, path / JSON_NAME)
    rows = [
        Score("", name.replace("_", " "), found[BENCHMARK]["mean"], (found[BENCHMARK]["low"], found[BENCHMARK]["high"]))
        for name, found in summary["stages"].items()
    ]
    page = render(
        TEMPLATE,
        title=path.resolve().name,
        summary=summary,
        benchmark=BENCHMARK,
        chart=score_chart(rows),
        curves=metric_curves(study.preferences, PREFERENCE_METRICS),
        gallery=study.gallery(),
    )
    (path / PAGE_NAME).write_text(page, encoding="utf-8")
    return summary


def _folders(path: Path, pattern: str) -> list[Path]:
    found = sorted(path.glob(pattern))
    if not found:
        raise EvaluationError(f"{path / pattern} is missing; run scripts/reproduce_shapes.sh to the end")
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    """None where a verifier saw only good images, or only bad ones."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
