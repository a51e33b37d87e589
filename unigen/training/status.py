# SPDX-License-Identifier: Apache-2.0
"""`status.json` of a run's folder: how far the run was when it started or ended, how it ended, and what it ran on.

Needs no torch, so that a command can look at many runs at once.
"""

import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from unigen.environment import git_commit, package_versions
from unigen.errors import UnigenError

FILE = "status.json"
_SECONDS_TO_FOLLOW = 60.0
State = Literal["running", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Status:
    """What the last process that worked on a run said of it."""

    state: State
    """`stopped`: it was told to, and saved itself."""
    step: int
    """Steps done when this was written; the lines of metrics are newer while the run goes on."""
    num_steps: int
    num_processes: int
    host: str = field(default_factory=platform.node)
    job: str | None = field(default_factory=lambda: os.environ.get("SLURM_JOB_ID"))
    """The SLURM job, where there is one."""
    started: float = field(default_factory=time.time)
    """Seconds since the epoch, of the last start."""
    error: str | None = None
    """Why it failed, in one line."""
    is_mistake: bool = False
    """It failed of something that a person has to mend, and would fail again."""
    git_commit: str | None = field(default_factory=git_commit)
    packages: dict[str, str] = field(default_factory=package_versions)

    def write(self, folder: Path) -> None:
        partial = folder / f".{FILE}.{platform.node()}.{os.getpid()}.tmp"
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / FILE)

    def write_end(self, folder: Path, step: int) -> None:
        """The run went as far as it should, or as it was let."""
        replace(self, state="done" if step >= self.num_steps else "stopped", step=step).write(folder)


@dataclass(frozen=True)
class FailureNoted:
    """A context: an error that leaves it is noted in the run's folder, on whichever rank it happens."""

    folder: Path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.folder.is_dir():
            with suppress(OSError, ValueError):  # a disk that is full takes no note either
                _note(self.folder, error)


def _note(folder: Path, error: BaseException) -> None:
    is_mistake = isinstance(error, UnigenError) and error.is_mistake
    present = read_status(folder)
    if present is not None and present.state == "failed" and (present.is_mistake or not is_mistake):
        age = time.time() - (folder / FILE).stat().st_mtime
        if age < _SECONDS_TO_FOLLOW:  # the rank that says why takes the others down, who only miss it
            return
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    before = present or Status("failed", 0, 0, 0)
    job = os.environ.get("SLURM_JOB_ID")
    replace(before, state="failed", error=reason, is_mistake=is_mistake, job=job).write(folder)


def read_status(folder: Path) -> Status | None:
    """None where there is none; keys that this version does not know are passed over.

    Raises:
        ValueError: the file is not a status.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    try:
        return Status(**{one.name: content[one.name] for one in fields(Status)})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / FILE} is not the status of a run: {error}") from error
