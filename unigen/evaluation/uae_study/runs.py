# SPDX-License-Identifier: Apache-2.0
"""The training runs of a study of UAE: the two policy stages and their controls from every seed, and the parts before them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from unigen.config.folders import find_model, weights_hash
from unigen.errors import EvaluationError
from unigen.evaluation.run_folder import StageLog, read_stage

UNDERSTANDING, GENERATION = "understanding", "generation"
CONTROLS = {UNDERSTANDING: "control_understanding", GENERATION: "control_generation"}
REWARD, CAPTION_LENGTH = "reward/total", "caption/length"
ADVANTAGES = "shuffle_advantages"


@dataclass(frozen=True)
class PolicyRuns:
    """One policy stage, or its control: the logs of all seeds."""

    name: str
    logs: Sequence[StageLog]

    @classmethod
    def read(cls, name: str, path: Path) -> "PolicyRuns":
        """Raises EvaluationError where a seed has no such run, or did not end it."""
        seeds = sorted(path.glob("seed-*"))
        return cls(name, [_read_log(seed / name) for seed in seeds])

    @property
    def seconds(self) -> float:
        return sum(log.seconds for log in self.logs)

    def curves(self, metric: str) -> dict[str, dict[str, list[Any]]]:
        """By seed, the steps and values of one metric; seeds without it are left out."""
        found = {log.name: log.curve(metric) for log in self.logs}
        return {name: {"steps": steps, "values": values} for name, (steps, values) in found.items() if steps}

    def mean_curve(self, metric: str) -> dict[int, float]:
        """By step, the mean over the seeds."""
        by_step: dict[int, list[float]] = {}
        for curve in self.curves(metric).values():
            for step, value in zip(curve["steps"], curve["values"], strict=True):
                by_step.setdefault(step, []).append(value)
        return {step: fmean(values) for step, values in sorted(by_step.items())}


def read_runs(path: Path) -> dict[str, PolicyRuns]:
    """The runs of both stages and of their controls, by name.

    Raises:
        EvaluationError: a run is missing or did not end, or a control differs in more than the dealing out of its advantages.
    """
    runs = {name: PolicyRuns.read(name, path) for pair in CONTROLS.items() for name in pair}
    for name, control in CONTROLS.items():
        for own, other in zip(runs[name].logs, runs[control].logs, strict=True):
            _check_control(f"{own.name}/{name}", own.config, f"{other.name}/{control}", other.config)
    return runs


def reward_encoders(run: PolicyRuns) -> dict[str, str]:
    """By name, the hash of the weights of each encoder that gave a reward.

    Raises:
        CheckpointError: its folder is not there any more.
    """
    config = run.logs[0].config
    models = {name: reward["model"] for name, reward in config["grpo"]["rewards"].items() if reward.get("model")}
    return {name: weights_hash(find_model(model, config["data"]["root"])) for name, model in models.items()}


def part_seconds(path: Path) -> dict[str, float]:
    """Training time of each pretrained part, by the name of its folder."""
    files = sorted(path.glob("*/metrics.jsonl"))
    return {file.parent.name: round(read_stage(file.parent.name, file).seconds, 1) for file in files}


def _read_log(folder: Path) -> StageLog:
    file = folder / "metrics.jsonl"
    if not file.is_file():
        raise EvaluationError(f"{file} is missing; run scripts/reproduce_uae_shapes.sh to the end")
    log = read_stage(folder.parent.name, file)
    wanted = log.config.get("training", {}).get("steps")
    if not log.lines or wanted is None or log.steps < wanted:
        raise EvaluationError(f"{folder} was not trained to its last step, {wanted}; run its training again")
    return log


def _check_control(name: str, config: Mapping[str, Any], control: str, shuffled: Mapping[str, Any]) -> None:
    """That the control is its stage in all but the advantages."""
    if config["grpo"].get(ADVANTAGES) or not shuffled["grpo"].get(ADVANTAGES):
        raise EvaluationError(f"{control} has to be trained with grpo.{ADVANTAGES}=true, and {name} without it")
    settings, expected = _comparable(config), _comparable(shuffled)
    differing = [key for key in settings if settings[key] != expected[key]]
    if differing:
        raise EvaluationError(
            f"{control} was trained with another {differing[0]} than {name}; train both on one budget"
        )


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides what a run sees and how it learns, apart from the weights that it began with."""
    return {
        "experiment.seed": config["experiment"]["seed"],
        "training.steps": config["training"]["steps"],
        "training.samples_per_step": config["training"]["samples_per_step"],
        "optimizer": config["optimizer"],
        "schedule": config["schedule"],
        "grpo": {key: value for key, value in config["grpo"].items() if key != ADVANTAGES},
    }
