# SPDX-License-Identifier: Apache-2.0
"""The official judge in its own environment: `third_party/mplug/answer.py` reads our questions and writes its answers."""

import subprocess
from pathlib import Path

from unigen.config.evaluation import DpgConfig
from unigen.config.folders import REPOSITORY
from unigen.errors import EvaluationError

SCRIPT = REPOSITORY / "third_party" / "mplug" / "answer.py"


def answer_in_own_environment(python: str, folder: Path) -> None:
    """Have the questions of a folder answered by the python of another environment.

    Raises:
        EvaluationError: it cannot be started, or fails.
    """
    try:
        finished = subprocess.run([python, str(SCRIPT), str(folder)], check=False)
    except OSError as error:
        raise EvaluationError(f"dpg.judge_python is {python}, which cannot be started: {error}") from error
    if finished.returncode:
        raise EvaluationError(f"{python} {SCRIPT} {folder} ended with code {finished.returncode}; see what it said")


def how_to_answer(config: DpgConfig, folder: Path) -> str:
    """What a user has to do for the missing answers."""
    if config.judge == "model":
        return "run the same command again"
    if config.judge == "mplug":
        return f"in mPLUG's environment: python {SCRIPT} {folder}; then run the same command again"
    return f"let the judge answer {folder}/questions-*.jsonl into answers.jsonl there; then run the same command again"
