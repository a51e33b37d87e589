# SPDX-License-Identifier: Apache-2.0
"""The page of a study of UAE: findings, scores, differences, learning curves, and images beside their reconstructions."""

from collections.abc import Mapping
from typing import Any

from unigen.errors import EvaluationError
from unigen.evaluation.figures import metric_curves, score_chart
from unigen.evaluation.page import render
from unigen.evaluation.run_folder import StageLog
from unigen.evaluation.showcase import data_uri
from unigen.evaluation.study import verdict
from unigen.evaluation.tables import Score
from unigen.evaluation.uae_study.arms import AFTER_GENERATION, AFTER_UNDERSTANDING, BEFORE, CONTROL, Redrawing, UaeArm
from unigen.evaluation.uae_study.runs import CAPTION_LENGTH, CONTROLS, REWARD, PolicyRuns

TEMPLATE = "uae.html.j2"
NUM_SHOWN = 12
ARM_LABELS = {
    BEFORE: "before",
    AFTER_UNDERSTANDING: "after understanding",
    AFTER_GENERATION: "after generation",
    CONTROL: "control",
}
PAIR_LABELS = {
    "understanding": "understanding stage: after minus before",
    "generation": "generation stage: after minus before",
    "control": "control: both stages, shuffled advantages",
    "policy_minus_control": "after both stages, minus the control",
}
CURVES = {REWARD: "reward", CAPTION_LENGTH: "caption length"}


def render_page(
    title: str, summary: Mapping[str, Any], arms: Mapping[str, UaeArm], runs: Mapping[str, PolicyRuns]
) -> str:
    """The page of a study with this report.json."""
    return render(
        TEMPLATE,
        title=title,
        summary=summary,
        labels=ARM_LABELS,
        pair_labels=PAIR_LABELS,
        verdict=verdict,
        chart=score_chart(_scores(summary["unified_bench"])),
        accuracy=score_chart(
            _scores({name: one for name, one in summary["caption_accuracy"].items() if name != "paired"})
        ),
        curves=_learning_curves(runs),
        gallery=gallery(arms),
    )


def gallery(arms: Mapping[str, UaeArm]) -> list[dict[str, Any]]:
    """The first images, each with captions and reconstructions before and after, of the first seed."""
    before, after = arms[BEFORE].seeds[0], arms[AFTER_GENERATION].seeds[0]
    return [
        {
            "original": data_uri(before[key].original),
            "made": [{"when": "before", **_shown(before[key])}, {"when": "after", **_shown(after[key])}],
        }
        for key in sorted(before)[:NUM_SHOWN]
    ]


def _shown(one: Redrawing) -> dict[str, Any]:
    if not one.image.is_file():
        raise EvaluationError(f"{one.image} is missing; the page shows reconstructions, so keep them beside the scores")
    return {"caption": one.caption, "image": data_uri(one.image), "score": one.score, "f1": one.accuracy.f1}


def _scores(found: Mapping[str, Mapping[str, float]]) -> list[Score]:
    return [
        Score(
            "",
            ARM_LABELS.get(name, name),
            one["mean"],
            (one["low"], one["high"]),
            is_reference=name in (BEFORE, CONTROL),
        )
        for name, one in found.items()
    ]


def _learning_curves(runs: Mapping[str, PolicyRuns]) -> str:
    """Reward and caption length of each stage over its steps, means over the seeds; the policy's and the control's line."""
    panels = {
        f"{name}, {stage}": (stage, metric)
        for stage in CONTROLS
        for metric, name in CURVES.items()
        if runs[stage].mean_curve(metric)
    }
    lines = {
        label: {
            title: runs[stage if label == "policy" else CONTROLS[stage]].mean_curve(metric)
            for title, (stage, metric) in panels.items()
        }
        for label in ("policy", "control")
    }
    return metric_curves([_log(label, curves) for label, curves in lines.items()], list(panels))


def _log(label: str, curves: Mapping[str, Mapping[int, float]]) -> StageLog:
    """Curves as the log of one run."""
    steps = sorted({step for curve in curves.values() for step in curve})
    lines = [{"step": step, **{name: curve[step] for name, curve in curves.items() if step in curve}} for step in steps]
    return StageLog(label, lines, {})
