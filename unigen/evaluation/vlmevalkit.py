# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of any family as a model of VLMEvalKit, which is run as it lies in its own checkout.

VLMEvalKit has no way to bring a model from outside: models are entries of `vlmeval.config.supported_VLM`, and `run.py` beside the
package is the command. So the entry is added in this process, and `run.py` is run in it.
"""

import runpy
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unigen.data.ranks import Ranks
from unigen.errors import EvaluationError
from unigen.evaluation.lmms.answers import weights_key
from unigen.evaluation.lmms.messages import Message, read_messages
from unigen.generation.pipeline import Pipeline

SHOWN_DIGITS = 8


def model_name(pipeline: Pipeline, label: str = "unigen") -> str:
    """The name that VLMEvalKit keeps results under. It says the weights, since `--reuse` goes by the name alone."""
    return f"{label}-{weights_key(pipeline.describe()).partition('-')[2][:SHOWN_DIGITS]}"


def run_vlmevalkit(
    checkout: Path,
    pipeline: Pipeline,
    datasets: Sequence[str],
    output: Path,
    arguments: Sequence[str] = (),
    max_new_tokens: int = 512,
) -> Path:
    """Run VLMEvalKit's `run.py` over the pipeline's model; started by torchrun, each process does its share.

    Args:
        checkout: a checkout of VLMEvalKit whose requirements are installed.
        datasets: names of its data sets.
        arguments: further arguments of its `run.py`.
    Returns:
        the folder of the results.
    Raises:
        EvaluationError: there is no such checkout, or no predictions were written for a data set: `run.py` logs what fails
            and goes on.
    """
    runner = checkout / "run.py"
    if not runner.is_file() or not (checkout / "vlmeval").is_dir():
        raise EvaluationError(
            f"{checkout} is no checkout of VLMEvalKit; run: git clone https://github.com/open-compass/VLMEvalKit {checkout}"
        )
    name, started = model_name(pipeline), time.time()
    words = ["--model", name, "--data", *datasets, "--work-dir", str(output), *arguments]
    with_path, with_words = sys.path, sys.argv
    sys.path, sys.argv = [str(checkout), *sys.path], [str(runner), *words]
    try:
        _register(name, pipeline, max_new_tokens)
        runpy.run_path(str(runner), run_name="__main__")
    finally:
        sys.path, sys.argv = with_path, with_words
    if Ranks.from_environment().is_first:
        _require_predictions(output / name, name, datasets, started)
    return output / name


def as_messages(message: Sequence[Mapping[str, str]], role: str = "user") -> list[Message]:
    """One message of VLMEvalKit, a list of `{"type": "text" | "image" | ..., "value": ...}`, where an image is a path."""
    keys = {"text": "text", "image": "url"}
    return [
        {
            "role": role,
            "content": [{"type": part["type"], keys.get(part["type"], "url"): part["value"]} for part in message],
        }
    ]


def _register(name: str, pipeline: Pipeline, max_new_tokens: int) -> None:
    """Add the model to VLMEvalKit's table, which its runner shares."""
    from vlmeval.config import supported_VLM
    from vlmeval.vlm.base import BaseModel

    class PipelineModel(BaseModel):
        """Answers through a pipeline, greedily."""

        INTERLEAVE = True

        def __init__(self, **_settings: Any) -> None:
            super().__init__()

        def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
            return self._answer(as_messages(message))

        def chat_inner(self, message: Sequence[Mapping[str, Any]], dataset: str | None = None) -> str:
            turns = [as_messages(_parts(turn["content"]), turn["role"]) for turn in message]
            return self._answer([one for turn in turns for one in turn])

        def _answer(self, messages: Sequence[Message]) -> str:
            request = read_messages(messages)
            return next(iter(pipeline.ask_requests([request], temperature=0.0, max_new_tokens=max_new_tokens)))

    supported_VLM[name] = partial(PipelineModel)


def _parts(content: str | Sequence[Mapping[str, str]]) -> Sequence[Mapping[str, str]]:
    return [{"type": "text", "value": content}] if isinstance(content, str) else content


def _require_predictions(folder: Path, name: str, datasets: Sequence[str], started: float) -> None:
    for dataset in datasets:
        written = [path for path in folder.rglob(f"{name}_{dataset}*") if path.stat().st_mtime >= started - 1]
        if not written:
            raise EvaluationError(f"VLMEvalKit wrote no predictions for {dataset} into {folder}; see what it printed")
