# SPDX-License-Identifier: Apache-2.0
"""The page of a study of forks: scores, differences, budgets, alignment, losses and drawings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unigen.evaluation.figures import alignment_curves, difference_curves, metric_curves, score_chart
from unigen.evaluation.page import render
from unigen.evaluation.records import read_records
from unigen.evaluation.run_folder import TOTAL_LOSS
from unigen.evaluation.showcase import data_uri
from unigen.evaluation.study import verdict
from unigen.evaluation.tables import Score
from unigen.evaluation.unifork_study.arms import BASELINE, DRAWING, EVALUATION, ForkArm
from unigen.evaluation.unifork_study.findings import TITLES, forks, peak, shared_layers

TEMPLATE = "unifork.html.j2"
NUM_SHOWN = 8
WAYS = {"understanding": "understanding branch", "generation": "generation branch"}


def render_page(title: str, summary: Mapping[str, Any], arms: Sequence[ForkArm]) -> str:
    """The page of a study with this report.json."""
    names = [arm.name for arm in arms]
    labels = {name: _words(name) for name in names}
    logs = [replace(arm.logs[0], name=labels[arm.name]) for arm in arms]
    losses = list(dict.fromkeys(name for log in logs for name in log.losses if name != TOTAL_LOSS))
    return render(
        TEMPLATE,
        title=title,
        summary=summary,
        names=names,
        labels=labels,
        shared={name: shared_layers(summary["models"][name]["layers"]) for name in names},
        titles=TITLES,
        baseline=BASELINE,
        verdict=verdict,
        charts={benchmark: score_chart(_scores(summary, benchmark)) for benchmark in TITLES},
        budgets=_budget_curves(summary),
        ways=WAYS,
        peaks={way: {name: peak(found, way) for name, found in summary["alignment"].items()} for way in WAYS},
        alignment=_alignment(summary),
        losses=metric_curves(logs, losses),
        gallery=_gallery(arms),
    )


def _scores(summary: Mapping[str, Any], benchmark: str) -> list[Score]:
    rows = [
        Score("", _words(name), model[benchmark]["mean"], (model[benchmark]["low"], model[benchmark]["high"]))
        for name, model in summary["models"].items()
        if benchmark in model
    ]
    beside = summary["references"].get(benchmark, {})
    return [*rows, *(Score("", name, value, is_reference=True) for name, value in beside.items())]


def _budget_curves(summary: Mapping[str, Any]) -> str | None:
    """Differences of the forks from the fully shared model over the steps."""
    if not summary["budgets"]:
        return None
    steps = sorted(map(int, summary["budgets"]))
    found = {
        title: {
            _words(name): [
                (step, paired[benchmark])
                for step in steps
                if benchmark in (paired := summary["budgets"][str(step)]["paired"].get(f"{name}_minus_{BASELINE}", {}))
            ]
            for name in forks(summary)
        }
        for benchmark, title in TITLES.items()
    }
    return difference_curves(found, _in_order(summary))


def _alignment(summary: Mapping[str, Any]) -> str | None:
    """A panel a branch, a line an arm."""
    aligned = summary["alignment"]
    if not aligned:
        return None
    chance = next(iter(aligned.values()))["chance"]
    lines = {
        title: {_words(name): found["ways"][way] for name, found in aligned.items() if way in found["ways"]}
        for way, title in WAYS.items()
    }
    panels = {title: {"ways": found, "chance": chance} for title, found in lines.items() if found}
    return alignment_curves(panels, _in_order(summary))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _in_order(summary: Mapping[str, Any]) -> list[str]:
    """The arms as figures call them, so that each has one colour in all of them."""
    return [_words(name) for name in summary["models"]]


def _gallery(arms: Sequence[ForkArm]) -> list[dict[str, Any]]:
    """Some prompts, spread over all, with the first drawing of each arm's first seed."""
    folders = {arm.name: arm.seeds[0] / EVALUATION / DRAWING for arm in arms if arm.config.has("generation")}
    records = {name: read_records(folder) for name, folder in folders.items()}
    keys = sorted(key for key in next(iter(records.values())) if key.endswith("/00000"))
    step = max(1, len(keys) // NUM_SHOWN)
    rows = []
    for key in keys[step // 2 :: step][:NUM_SHOWN]:
        shown = [_shown(name, folders[name], found[key]) for name, found in records.items() if key in found]
        rows.append({"prompt": records[BASELINE][key]["prompt"], "drawings": [one for one in shown if one]})
    return [row for row in rows if row["drawings"]]


def _shown(name: str, folder: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """None where the image is not there any more."""
    place = folder / record["path"]
    if not place.is_file():
        return None
    return {"name": name, "image": data_uri(place), "correct": record["correct"], "reason": record["reason"]}
