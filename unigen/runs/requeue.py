# SPDX-License-Identifier: Apache-2.0
"""Whether a job that ended shall be started again: not after a user's mistake, and not for ever without getting further."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from unigen.training.checkpoint_folder import saved_steps
from unigen.training.signals import REQUEUE_EXIT_CODE
from unigen.training.status import read_status

FILE = "requeue.json"
EXIT_USER_MISTAKE = 2


@dataclass(frozen=True)
class Verdict:
    requeue: bool
    reason: str


def judge(folder: Path, exit_code: int, max_failures: int) -> Verdict:
    """Judge a job by its exit code and by whether the run in `folder` has a newer checkpoint than when it was last judged.

    Ends without a newer checkpoint are counted in `folder/requeue.json`; one with a newer checkpoint begins anew.
    """
    if exit_code == 0:
        return Verdict(False, "the run is done")
    if exit_code == EXIT_USER_MISTAKE or _has_noted_mistake(folder):
        return Verdict(False, "the run failed of something that it would fail of again")
    step = max(saved_steps(folder), default=0)
    ended = "the run saved itself" if exit_code == REQUEUE_EXIT_CODE else f"the run ended with exit code {exit_code}"
    before_step, failures = _read(folder / FILE)
    if step > before_step:
        failures = 0
        progress = f"its newest checkpoint is that of step {step}"
    else:
        failures += 1
        progress = f"no newer checkpoint than that of step {step} ({failures} of {max_failures} times in a row)"
    if folder.is_dir():
        (folder / FILE).write_text(json.dumps({"step": step, "failures": failures}) + "\n", encoding="utf-8")
    return Verdict(failures < max_failures and folder.is_dir(), f"{ended}, {progress}")


def _has_noted_mistake(folder: Path) -> bool:
    """Launchers of several processes make 1 of every exit code; the run's folder knows more, if it was this job's run."""
    status = read_status(folder)
    return status is not None and status.is_mistake and status.job == os.environ.get("SLURM_JOB_ID")


def _read(file: Path) -> tuple[int, int]:
    """Step and failures when the run was last judged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return int(content["step"]), int(content["failures"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0
