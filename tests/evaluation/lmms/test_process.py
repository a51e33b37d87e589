# SPDX-License-Identifier: Apache-2.0
"""The command that is run, and what it says when it fails."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unigen.config.evaluation import LmmsConfig
from unigen.errors import EvaluationError
from unigen.evaluation.job import Job, Options
from unigen.evaluation.lmms.process import command_line, last_error


def _job(folder: Path, model: str = "runs/sft", **settings: Any) -> Job:
    pipeline: Any = SimpleNamespace(name=model)
    options = Options(output=folder, lmms=LmmsConfig(**settings), batch_size=3, seed=5)
    return Job(
        pipeline, options, folder / "lmms", {"weights": {"model": "abc"}, "dtype": "torch.float32", "device": "cpu"}
    )


def test_the_command_asks_for_the_weights_that_were_seen(tmp_path: Path) -> None:
    job = _job(tmp_path, include_path="my tasks", most_new_tokens=9)
    words = command_line(job, ["pope", "gqa"])
    flags = dict(pairwise(words))
    arguments = dict(part.split("=") for part in flags["--model_args"].split(","))
    assert words[1:3] == ["-m", "lmms_eval"]
    assert (flags["--tasks"], flags["--batch_size"], flags["--include_path"], flags["--device"]) == (
        "pope,gqa",
        "3",
        "my tasks",
        "cpu",
    )
    assert (arguments["pretrained"], arguments["most_new_tokens"], arguments["seed"]) == ("runs/sft", "9", "5")
    assert arguments["weights"].startswith("sha256-")
    other = Job(job.pipeline, job.options, job.folder, {**job.model, "weights": {"model": "abd"}})
    assert command_line(other, ["pope", "gqa"]) != words


def test_documents_are_scored_one_after_another(tmp_path: Path) -> None:
    words = command_line(_job(tmp_path), ["mmmu_val"])
    assert words[words.index("--process_docs_parallel") + 1] == "1"


@pytest.mark.parametrize("model", ["runs/a,b", "runs/a=b"])
def test_a_path_that_would_come_apart_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="rename it"):
        command_line(_job(tmp_path, model), ["pope"])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("all is well\n", None),
        (
            "ValueError: first\nx | ERROR | Error during evaluation: Tasks not\nfound: x. Please set `--verbosity=DEBUG` to\n",
            "Tasks not found: x",
        ),
        (
            "Traceback (most recent call last):\n  File 'a'\nModuleNotFoundError: No module named 'b'\n",
            "ModuleNotFoundError: No module named 'b'",
        ),
    ],
)
def test_the_last_error_is_one_line(text: str, error: str | None) -> None:
    assert last_error(text) == error
