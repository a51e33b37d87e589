# SPDX-License-Identifier: Apache-2.0
"""One arm of a study of forks: what it was trained with, from which seeds, what it costs and what it can do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from unigen.config.folders import find_model
from unigen.errors import EvaluationError
from unigen.evaluation.run import read_results
from unigen.evaluation.run_folder import StageLog, read_stage
from unigen.evaluation.study import Arm, graded_answers, graded_drawings
from unigen.models.unifork_checkpoints import read_unifork_config
from unigen.models.unifork_config import Branch, UniForkConfig
from unigen.models.unifork_cost import BranchCost, unifork_costs

BASELINE = "fully_shared"
DRAWING, READING, ALIGNMENT = "geneval_shapes", "vqa_shapes", "alignment"
GRADES = {DRAWING: graded_drawings, READING: graded_answers}
NEEDS: dict[str, Branch] = {DRAWING: "generation", READING: "understanding"}
EVALUATION = "evaluation"


@dataclass(frozen=True)
class ForkArm:
    """A model trained from one seed or several, as it lies in a study's folder."""

    name: str
    seeds: Sequence[Path]
    logs: Sequence[StageLog]
    """Of each seed's training."""
    results: Sequence[Mapping[str, Any]]
    """results.json of each seed's evaluation."""
    config: UniForkConfig

    @classmethod
    def read(cls, path: Path) -> "ForkArm":
        """Raises EvaluationError where a seed was not trained to the end, or not evaluated."""
        seeds = sorted(folder.parent for folder in path.glob("seed-*/train"))
        logs = [_read_log(path.name, seed) for seed in seeds]
        results = []
        for seed in seeds:
            found = read_results(seed / EVALUATION)
            if found is None:
                raise EvaluationError(f"{seed / EVALUATION} is missing; run `unigen evaluate` into it")
            results.append(found)
        config = read_unifork_config(find_model(seeds[0] / "train"))
        return cls(path.name, seeds, logs, results, config)

    def verdicts(self, evaluation: str) -> dict[str, Arm]:
        """By benchmark; one that the model cannot do is left out, and all are where there is no evaluation of this name.

        Raises:
            EvaluationError: some seeds have it and others not.
        """
        folders = [seed / evaluation for seed in self.seeds]
        if evaluation != EVALUATION and not any(folder.is_dir() for folder in folders):
            return {}
        able = [benchmark for benchmark, branch in NEEDS.items() if self.config.has(branch)]
        return {
            benchmark: Arm.read(self.name, [folder / benchmark for folder in folders], GRADES[benchmark])
            for benchmark in able
        }

    def layers(self) -> dict[str, int | None]:
        """How many are shared, and how many are each branch's own."""
        own = {"understanding": self.config.num_understanding_layers, "generation": self.config.num_generation_layers}
        return {"shared": self.config.num_shared_layers, **own}

    def costs(self) -> tuple[int, dict[Branch, BranchCost]]:
        """All parameters, and the cost of each branch."""
        return unifork_costs(self.config)

    def alignment(self) -> dict[str, Any]:
        """The curves of each branch: means over the seeds, of the ends of the intervals too; empty where none was measured."""
        found = [results[ALIGNMENT] for results in self.results if ALIGNMENT in results]
        if not found:
            return {}
        ways = {
            way: {name: np.mean([one["ways"][way][name] for one in found], axis=0).tolist() for name in curve}
            for way, curve in found[0]["ways"].items()
        }
        return {**{key: found[0][key] for key in ("k", "chance", "num_pairs")}, "ways": ways}

    def budget(self) -> dict[str, Any]:
        """What all arms must have in common."""
        config = self.logs[0].config
        per_step = _samples_per_step(config)
        # With whole rounds over the lanes, a lane serves a task in the same order whatever other tasks a step holds.
        same_samples = all(count % config["data"]["lanes"] == 0 for count in per_step.values())
        return {"steps": config["training"]["steps"], "samples_per_step": per_step, "same_samples": same_samples}

    def final_losses(self) -> dict[str, float]:
        """By task, over the last twentieth of the logged steps, mean over seeds."""
        names = [name for name in self.logs[0].losses if name != "loss/total"]
        return {name.removeprefix("loss/"): fmean(log.last(name) for log in self.logs) for name in names}

    @property
    def training_seconds(self) -> float:
        return sum(log.seconds for log in self.logs)

    @cached_property
    def evaluation_seconds(self) -> float:
        return sum(
            found.get("seconds", 0.0)
            for results in self.results
            for found in results.values()
            if isinstance(found, Mapping)
        )


def check_one_budget(arms: Sequence[ForkArm]) -> None:
    """That arms differ in nothing but where they fork: seeds, steps, data, optimiser, and samples a step of each task they have.

    Raises:
        EvaluationError: naming the arm and the first difference.
    """
    baseline = next(arm for arm in arms if arm.name == BASELINE)
    for arm in arms:
        if [seed.name for seed in arm.seeds] != [seed.name for seed in baseline.seeds]:
            ours, theirs = (", ".join(seed.name for seed in one.seeds) for one in (arm, baseline))
            raise EvaluationError(f"{arm.name} has {ours}, but {BASELINE} has {theirs}; train the same seeds of both")
        for own, shared in zip(arm.logs, baseline.logs, strict=True):
            settings, expected = _comparable(own.config), _comparable(shared.config)
            differing = [key for key in settings if settings[key] != expected[key]]
            counts, wanted = _samples_per_step(own.config), _samples_per_step(shared.config)
            differing += [f"training.samples_per_step.{task}" for task in counts if counts[task] != wanted.get(task)]
            if differing:
                raise EvaluationError(
                    f"{own.name} was trained with another {differing[0]} than {shared.name}; train both on one budget"
                )


def _samples_per_step(config: Mapping[str, Any]) -> dict[str, int]:
    return {task: count for task, count in config["training"]["samples_per_step"].items() if count}


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides what a run sees and how it learns, apart from the model."""
    return {
        "experiment.seed": config["experiment"]["seed"],
        "training.steps": config["training"]["steps"],
        "data.lanes": config["data"]["lanes"],
        "model.image_tokenizer": config["model"]["image_tokenizer"],
        "model.language_model": config["model"]["language_model"],
        "optimizer": config["optimizer"],
        "schedule": config["schedule"],
        "training.loss_weights": config["training"]["loss_weights"],
    }


def _read_log(arm: str, seed: Path) -> StageLog:
    file = seed / "train" / "metrics.jsonl"
    if not file.is_file():
        raise EvaluationError(f"{file} is missing; run the training of {arm} again")
    log = read_stage(f"{arm}/{seed.name}", file)
    wanted = log.config.get("training", {}).get("steps")
    if not log.lines or wanted is None or log.steps < wanted:
        raise EvaluationError(f"{seed / 'train'} was not trained to its last step, {wanted}; run its training again")
    return log
