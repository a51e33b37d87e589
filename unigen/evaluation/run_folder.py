# SPDX-License-Identifier: Apache-2.0
"""What a run left behind: its stages' metrics and configurations, when it began, and its evaluation.

<run>/started                      seconds since the epoch when the run began
<run>/<stage>/metrics.jsonl        one line a logged step
<run>/<stage>/config.yaml
<run>/evaluation/results.json      and the benchmarks' own folders
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unigen.errors import EvaluationError
from unigen.evaluation.run import RESULTS_NAME, read_results

STAGES = ("tokenizer", "vision", "pt1", "pt2", "sft")
"""Order of the stages in a report; other folders with metrics follow in order of name."""
EVALUATION = "evaluation"
SECONDS, TOTAL_LOSS = "time/seconds", "loss/total"
_EDGE_SHARE = 20  # the first and last twentieth of the logged losses are averaged


@dataclass(frozen=True)
class StageLog:
    """One stage: its lines of metrics, in order, and its configuration."""

    name: str
    lines: Sequence[Mapping[str, float]]
    config: Mapping[str, Any]

    @property
    def steps(self) -> int:
        return int(self.lines[-1]["step"])

    @property
    def seconds(self) -> float:
        """Time spent training."""
        return next((float(line[SECONDS]) for line in reversed(self.lines) if SECONDS in line), 0.0)

    @property
    def losses(self) -> list[str]:
        """Names of the losses, the total first."""
        names = dict.fromkeys(name for line in self.lines for name in line if name.startswith("loss/"))
        return sorted(names, key=lambda name: name != TOTAL_LOSS)

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric."""
        points = [(int(line["step"]), float(line[name])) for line in self.lines if name in line]
        return [step for step, _ in points], [value for _, value in points]

    def loss_at_edges(self) -> tuple[float, float]:
        """The loss over the first and over the last twentieth of the logged steps."""
        _, values = self.curve(self.losses[0])
        count = max(1, len(values) // _EDGE_SHARE)
        return sum(values[:count]) / count, self.last(self.losses[0])

    def last(self, name: str) -> float:
        """One metric over the last twentieth of the logged steps."""
        _, values = self.curve(name)
        count = max(1, len(values) // _EDGE_SHARE)
        return sum(values[-count:]) / count


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, read."""

    path: Path
    stages: Sequence[StageLog]
    results: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "RunFolder":
        """Read what is there; a run may still lack stages or an evaluation.

        Raises:
            EvaluationError: there is nothing to report on, or a file is damaged.
        """
        logs = {file.parent.name: file for file in sorted(path.glob("*/metrics.jsonl"))}
        names = [*(name for name in STAGES if name in logs), *(name for name in logs if name not in STAGES)]
        stages = [read_stage(name, logs[name]) for name in names]
        results = read_results(path / EVALUATION)
        if not stages and results is None:
            raise EvaluationError(
                f"nothing to report in {path}: it has neither <stage>/metrics.jsonl nor {EVALUATION}/{RESULTS_NAME}; "
                "name the folder of a run"
            )
        return cls(path, [stage for stage in stages if stage.lines], results or {})

    @property
    def evaluation(self) -> Path:
        return self.path / EVALUATION

    @property
    def seed(self) -> int | None:
        """The last stage's base seed."""
        seeds = [stage.config.get("experiment", {}).get("seed") for stage in self.stages]
        return next((int(seed) for seed in reversed(seeds) if seed is not None), self._manifest.get("seed"))

    @property
    def git_commit(self) -> str | None:
        return self._manifest.get("git_commit")

    @property
    def seconds(self) -> float:
        """From the beginning, set-up included, to the last file; without a note of the beginning, the training alone."""
        note = self.path / "started"
        if not note.is_file():
            return sum(stage.seconds for stage in self.stages)
        try:
            started = float(note.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EvaluationError(f"{note} does not hold seconds since the epoch: {error}; delete it") from error
        ends = [self.path / stage.name / "metrics.jsonl" for stage in self.stages]
        ends += [self.evaluation / RESULTS_NAME] if self.results else []
        return max(file.stat().st_mtime for file in ends) - started

    @property
    def _manifest(self) -> Mapping[str, Any]:
        return self.results.get("manifest", {})


def read_stage(name: str, file: Path) -> StageLog:
    """The log of a stage from its metrics.jsonl.

    Raises:
        EvaluationError: a line is damaged.
    """
    lines = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise EvaluationError(f"{file}, line {number} is not JSON: {error}; delete that line") from error
    return StageLog(name, lines, _read_config(file.with_name("config.yaml")))


def _read_config(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{file} is not readable YAML: {error}; delete it") from error
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
