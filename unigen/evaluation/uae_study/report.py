# SPDX-License-Identifier: Apache-2.0
"""What learning from rewards brings to UAE, as `scripts/reproduce_uae_shapes.sh` lays it out:

<study>/started                              seconds since the epoch
<study>/<part>                               the pretrained parts, links into a cache that other studies take them from too
<study>/datasets                             the world
<study>/evaluation/before                    unified_bench of the model that all seeds go on from
<study>/seed-*/{understanding,generation}    the policy stages, one after the other, with metrics.jsonl and config.yaml
<study>/seed-*/control_{understanding,generation}    the same with shuffled advantages
<study>/seed-*/evaluation/{after_understanding,after_generation,control}    unified_bench after each; the control's at its end

Scores are cosines of image features, 1 for the same image. Intervals are of a bootstrap over the images, all seeds together.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unigen.data.json_files import write_json
from unigen.environment import git_commit
from unigen.errors import EvaluationError
from unigen.evaluation.study import described, elapsed
from unigen.evaluation.uae_study.arms import (
    AFTER_GENERATION,
    AFTER_UNDERSTANDING,
    ARMS,
    BEFORE,
    CONTROL,
    Redrawing,
    UaeArm,
    check_same_images,
    differences,
    mean_by_seed,
    mean_over_images,
)
from unigen.evaluation.uae_study.findings import findings
from unigen.evaluation.uae_study.page import render_page
from unigen.evaluation.uae_study.runs import (
    CAPTION_LENGTH,
    REWARD,
    UNDERSTANDING,
    PolicyRuns,
    part_seconds,
    read_runs,
    reward_encoders,
)

JSON_NAME, PAGE_NAME = "report.json", "report.html"
PAIRS = {
    "understanding": (AFTER_UNDERSTANDING, BEFORE),
    "generation": (AFTER_GENERATION, AFTER_UNDERSTANDING),
    "control": (CONTROL, BEFORE),
    "policy_minus_control": (AFTER_GENERATION, CONTROL),
}
CAPTIONED = {"before": BEFORE, "after": AFTER_GENERATION, "control": CONTROL}


def write_uae_report(path: Path) -> dict[str, Any]:
    """Write report.json and report.html of a study; returns the content of report.json.

    Raises:
        EvaluationError: a part of the study is missing or damaged, or its runs cannot be compared.
    """
    runs = read_runs(path)
    arms = {name: UaeArm.read(name, path) for name in ARMS}
    check_same_images(list(arms.values()))
    check_encoders(arms, runs)
    summary = summarise(path, arms, runs)
    write_json(summary, path / JSON_NAME)
    (path / PAGE_NAME).write_text(render_page(path.resolve().name, summary, arms, runs), encoding="utf-8")
    return summary


def check_encoders(arms: Mapping[str, UaeArm], runs: Mapping[str, PolicyRuns]) -> None:
    """That all arms were scored by the same encoders, and by none whose rewards the policies learnt from.

    Raises:
        EvaluationError: naming the arm, or the encoder.
    """
    scoring = arms[BEFORE].encoders
    for arm in arms.values():
        if arm.encoders != scoring:
            raise EvaluationError(f"{arm.name} was scored by other encoders than {BEFORE}; evaluate both again")
    rewarding = {digest: name for run in runs.values() for name, digest in reward_encoders(run).items()}
    for name, digest in scoring:
        if digest in rewarding:
            raise EvaluationError(
                f"the encoder {name} scores, and it also gave the reward {rewarding[digest]}; score by another"
            )


def summarise(path: Path, arms: Mapping[str, UaeArm], runs: Mapping[str, PolicyRuns]) -> dict[str, Any]:
    """What report.json says."""
    scores = {name: arm.values(lambda one: one.score) for name, arm in arms.items()}
    content = {
        "unified_bench": {name: _described(found) for name, found in scores.items()},
        "paired": {name: _difference(scores[first], scores[second]) for name, (first, second) in PAIRS.items()},
        "reward": {name: run.curves(REWARD) for name, run in runs.items()},
        "caption_length": {name: found for name, run in runs.items() if (found := run.curves(CAPTION_LENGTH))},
        "caption_accuracy": _caption_accuracy(arms),
        "encoders": {"score": dict(arms[BEFORE].encoders), "reward": reward_encoders(runs[UNDERSTANDING])},
        "num_images": len(arms[BEFORE].seeds[0]),
        "num_seeds": len(arms[AFTER_GENERATION].seeds),
        "seconds": _seconds(path, arms, runs),
        "git_commit": git_commit(),
    }
    return {**content, "findings": findings(content)}


def _caption_accuracy(arms: Mapping[str, UaeArm]) -> dict[str, Any]:
    """F1 of the claimed against the true objects, with precision, recall and words of a caption, and what changes of it."""
    measures: dict[str, Any] = {
        "precision": lambda one: one.accuracy.precision,
        "recall": lambda one: one.accuracy.recall,
        "words": lambda one: len(one.caption.split()),
    }

    def f1(one: Redrawing) -> float:
        return one.accuracy.f1

    found = {name: arms[arm].values(f1) for name, arm in CAPTIONED.items()}
    beside = {
        name: {key: mean_over_images(arms[arm].values(measure)).value for key, measure in measures.items()}
        for name, arm in CAPTIONED.items()
    }
    return {
        **{name: {**described(mean_over_images(values)), **beside[name]} for name, values in found.items()},
        "paired": {name: _difference(found[name], found["before"]) for name in CAPTIONED if name != "before"},
    }


def _difference(first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    return _described(differences(first, second))


def _described(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Mean and interval over images, and the mean of each training seed."""
    return {**described(mean_over_images(values)), "seeds": mean_by_seed(values)}


def _seconds(path: Path, arms: Mapping[str, UaeArm], runs: Mapping[str, PolicyRuns]) -> dict[str, Any]:
    """Wall time: since the study began, of training by part and by policy stage (all seeds together), and of evaluation."""
    parts, policies = part_seconds(path), {name: round(run.seconds, 1) for name, run in runs.items()}
    return {
        "total": elapsed(path),
        "pretrained": {**parts, "total": round(sum(parts.values()), 1)},
        "rl": {**policies, "total": round(sum(policies.values()), 1)},
        "evaluation": round(sum(one.get("seconds", 0.0) for arm in arms.values() for one in arm.results), 1),
    }
