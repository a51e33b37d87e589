# SPDX-License-Identifier: Apache-2.0
"""The folder that a training run leaves: its configuration, metrics, status, checkpoints and the scores of its models.

Reading one needs no torch, so that many can be looked at in a moment.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from unigen.errors import DataError
from unigen.training.checkpoint_folder import checkpoint_folder, saved_steps
from unigen.training.status import FILE as STATUS
from unigen.training.status import Status, read_status

CONFIG, METRICS, RESULTS = "config.yaml", "metrics.jsonl", "results.json"
REQUEUE = "requeue"
SILENT_SECONDS = 600.0
"""A run that gave no sign of life for so long does not run any more, whatever its status says."""
MAX_DEPTH = 4
"""Folders between the one that is listed and a run."""
State = Literal["running", "done", "stopped", "failed", "lost"]
"""`stopped` was told to and can go on; `lost` broke off without a word."""


@dataclass(frozen=True)
class Run:
    """One run's folder, read."""

    path: Path
    config: Mapping[str, Any]
    lines: Sequence[Mapping[str, float]]
    """Of metrics.jsonl, in order."""
    status: Status | None

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Raises DataError for a folder that is no run's, or one with a damaged file."""
        if not is_run(path):
            what = "a run's folder" if path.is_dir() else "a folder"
            raise DataError(
                f"{path} is not {what}: a run has {CONFIG} and {METRICS} or a checkpoint; `unigen runs list` finds runs"
            )
        try:
            config = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))
            status = read_status(path)
        except (ValueError, yaml.YAMLError) as error:
            raise DataError(f"{path} has a file that cannot be read: {error}") from error
        if not isinstance(config, dict):
            raise DataError(f"{path / CONFIG} holds no configuration; bring it back from a checkpoint's {CONFIG}")
        return cls(path, config, _read_lines(path / METRICS), status)

    @property
    def stage(self) -> str:
        return str(self.config.get("stage", "unknown"))

    @property
    def step(self) -> int:
        """Steps that are done, as far as the folder says."""
        known = [int(line["step"]) for line in self.lines[-1:]] + saved_steps(self.path)[-1:]
        return max([*known, self.status.step if self.status else 0])

    @property
    def num_steps(self) -> int | None:
        if self.status is not None and self.status.num_steps:
            return self.status.num_steps
        steps = self.config.get("training", {}).get("steps")
        return int(steps) if steps is not None else None

    @property
    def state(self) -> State:
        if self.status is not None and self.status.state != "running":
            return self.status.state
        if (self.path / REQUEUE).exists():  # it ended where nothing more could be written
            return "stopped"
        if self.status is None and self.num_steps is not None and self.step >= self.num_steps:
            return "done"
        return "running" if self.silent_seconds < SILENT_SECONDS else "lost"

    @property
    def silent_seconds(self) -> float:
        """Since the last sign of life."""
        signs = [self.path / name for name in (CONFIG, METRICS, STATUS)] + [*self.path.glob("heartbeats/rank-*")]
        return max(0.0, time.time() - max(sign.stat().st_mtime for sign in signs if sign.exists()))

    @property
    def losses(self) -> list[str]:
        """Names of the losses, the total first."""
        names = dict.fromkeys(name for line in self.lines for name in line if name.startswith("loss/"))
        return sorted(names, key=lambda name: name != "loss/total")

    def last(self, name: str) -> float | None:
        """The newest value of a metric."""
        return next((line[name] for line in reversed(self.lines) if name in line), None)

    def curve(self, name: str) -> dict[int, float]:
        """Step -> value of a metric."""
        return {int(line["step"]): line[name] for line in self.lines if name in line}

    @property
    def environment(self) -> dict[str, str]:
        """Commit and package versions by name: of the last start, else of the newest checkpoint; empty if not known."""
        if self.status is not None:
            commit, packages = self.status.git_commit, self.status.packages
        else:
            found = _read_object(
                checkpoint_folder(self.path, max(saved_steps(self.path), default=0)) / "environment.json"
            )
            commit, packages = found.get("git_commit"), found.get("packages", {})
        return {**({"git_commit": commit} if commit else {}), **packages}

    @property
    def results(self) -> dict[str, Any]:
        """The newest results.json in the folder or right below it; empty where nothing was evaluated."""
        files = sorted(
            [*self.path.glob(RESULTS), *self.path.glob(f"*/{RESULTS}")], key=lambda file: file.stat().st_mtime
        )
        return _read_object(files[-1]) if files else {}


def is_run(path: Path) -> bool:
    return (path / CONFIG).is_file() and (
        any((path / name).is_file() for name in (METRICS, STATUS)) or bool(saved_steps(path))
    )


def find_runs(folder: Path) -> list[Path]:
    """The run folders in `folder`, itself included, in order of name; runs do not lie in runs.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    return list(_find(folder, MAX_DEPTH))


def _find(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    elif depth > 0:
        for below in sorted(folder.iterdir()):
            if below.is_dir() and not below.is_symlink() and not below.name.startswith("."):
                try:
                    yield from _find(below, depth - 1)
                except PermissionError:  # someone else's folder beside ours
                    continue


def _read_lines(file: Path) -> list[Mapping[str, float]]:
    """Whole lines; the last may be half written while the run goes on."""
    if not file.is_file():
        return []
    lines = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"{file}, line {number} is not JSON: {error}; delete that line") from error
    return lines


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}; delete it") from error
    return content if isinstance(content, dict) else {}
