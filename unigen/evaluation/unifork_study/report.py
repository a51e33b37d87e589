# SPDX-License-Identifier: Apache-2.0
"""Where a UniFork should fork, as `scripts/reproduce_unifork_shapes.sh` lays it out:

<study>/started                         seconds since the epoch
<study>/<arm>/seed-*/train              runs, with config.yaml, metrics.jsonl and checkpoints
<study>/<arm>/seed-*/evaluation         geneval_shapes, vqa_shapes (what the arm can do of them), alignment
<study>/<arm>/seed-*/evaluation-<step>  the same of an earlier checkpoint, where budgets are compared
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from unigen.data.json_files import write_json
from unigen.environment import git_commit
from unigen.errors import EvaluationError
from unigen.evaluation.study import described, difference, elapsed
from unigen.evaluation.unifork_study.arms import BASELINE, DRAWING, READING, ForkArm, check_one_budget
from unigen.evaluation.unifork_study.findings import findings
from unigen.evaluation.unifork_study.page import render_page

JSON_NAME, PAGE_NAME = "report.json", "report.html"
ORDER = ("und_expert", "gen_expert", BASELINE, "fork_quarter", "fork_half", "fork_three_quarters")
"""Of the arms in a report; others follow by name."""


def write_unifork_report(path: Path) -> dict[str, Any]:
    """Write report.json and report.html of a study; returns the content of report.json.

    Raises:
        EvaluationError: a part of the study is missing or damaged, or its arms cannot be compared.
    """
    arms = read_arms(path)
    summary = summarise(path, arms)
    write_json(summary, path / JSON_NAME)
    (path / PAGE_NAME).write_text(render_page(path.resolve().name, summary, arms), encoding="utf-8")
    return summary


def read_arms(path: Path) -> list[ForkArm]:
    """The arms of a study, all trained and evaluated on one budget with the same seeds.

    Raises:
        EvaluationError: no fully shared model to compare with, a missing part, or another budget.
    """
    names = {folder.parent.parent.name for folder in path.glob("*/seed-*/train")}
    if BASELINE not in names:
        raise EvaluationError(
            f"{path} has no {BASELINE}/seed-*/train to compare with; run scripts/reproduce_unifork_shapes.sh to the end"
        )
    ordered = [*(name for name in ORDER if name in names), *sorted(names - {*ORDER})]
    arms = [ForkArm.read(path / name) for name in ordered]
    check_one_budget(arms)
    return arms


def summarise(path: Path, arms: Sequence[ForkArm]) -> dict[str, Any]:
    """What report.json says."""
    baseline = next(arm for arm in arms if arm.name == BASELINE)
    scores = score_arms(arms, "evaluation")
    content = {
        "models": {arm.name: {**scores["models"][arm.name], **_facts(arm)} for arm in arms},
        "paired": scores["paired"],
        "alignment": {arm.name: arm.alignment() for arm in arms if arm.alignment()},
        "references": _references(arms),
        "budgets": _budgets(arms, scores),
        "budget": baseline.budget(),
        "num_seeds": len(baseline.seeds),
        "seconds": {
            "total": elapsed(path),
            "training": round(sum(arm.training_seconds for arm in arms), 1),
            "evaluation": round(sum(arm.evaluation_seconds for arm in arms), 1),
        },
        "git_commit": git_commit(),
    }
    return {**content, "findings": findings(content)}


def score_arms(arms: Sequence[ForkArm], evaluation: str) -> dict[str, Any]:
    """Scores of the arms that have an evaluation of this name, and their differences from the fully shared model."""
    found = {arm.name: arm.verdicts(evaluation) for arm in arms}
    shared = found[BASELINE]
    paired = {
        f"{name}_minus_{BASELINE}": {
            benchmark: described(difference(own[benchmark], shared[benchmark]))
            for benchmark in own
            if benchmark in shared
        }
        for name, own in found.items()
        if name != BASELINE and own
    }
    models = {name: {benchmark: arm.summary() for benchmark, arm in own.items()} for name, own in found.items()}
    return {"models": models, "paired": paired}


def _facts(arm: ForkArm) -> dict[str, Any]:
    """Sizes and losses of an arm."""
    total, costs = arm.costs()
    return {
        "layers": arm.layers(),
        "parameters": {"total": total, **{branch: cost.parameters for branch, cost in costs.items()}},
        "flops_per_token": {branch: cost.flops_per_token for branch, cost in costs.items()},
        "loss": arm.final_losses(),
        "seconds": round(arm.training_seconds, 1),
    }


def _budgets(arms: Sequence[ForkArm], last: Mapping[str, Any]) -> dict[str, Any]:
    """Scores by training step, the last checkpoint included; empty where only that was evaluated."""
    baseline = next(arm for arm in arms if arm.name == BASELINE)
    names = {folder.name for folder in baseline.seeds[0].glob("evaluation-*")}
    steps = sorted(int(found[1]) for found in (re.fullmatch(r"evaluation-(\d+)", name) for name in names) if found)
    if not steps:
        return {}
    found = {str(step): score_arms(arms, f"evaluation-{step}") for step in steps}
    return {**found, str(baseline.budget()["steps"]): dict(last)}


def _references(arms: Sequence[ForkArm]) -> dict[str, dict[str, float]]:
    """What the scores have to be seen beside: drawings that the image tokenizer has not spoiled, answers without looking."""
    wanted = {DRAWING: "ceiling", READING: "majority"}
    found: dict[str, dict[str, float]] = {}
    for benchmark, name in wanted.items():
        values = [
            results[benchmark][name]
            for arm in arms
            for results in arm.results
            if results.get(benchmark, {}).get(name) is not None
        ]
        if values:
            found[benchmark] = {name: fmean(values)}
    return found
