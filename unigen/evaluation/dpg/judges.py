# SPDX-License-Identifier: Apache-2.0
"""Who answers the questions about an image. Another judge gives another number, so it has another metric name.

`mplug`  the official judge, whose libraries do not live with ours: questions and answers go through JSONL files between two
         environments. Its score alone is called `dpg`. Its answer counts as yes if it is exactly "yes".
`file`   any other judge outside this process, through the same files; `dpg.judge_name` gives it its name.
`model`  a model that this project loads; it is asked for yes or no.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from unigen.config.evaluation import DpgConfig
from unigen.errors import EvaluationError
from unigen.generation.pipeline import AskRequest, Pipeline
from unigen.rewards.verdict_words import leading_verdict

OFFICIAL = "mplug"
MODEL_PROMPT = "{question} Answer with yes or no."
MAX_NEW_TOKENS = 4
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class Judge(Protocol):
    @property
    def metric(self) -> str:
        """The key of its scores in results.json."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on."""
        ...

    def is_yes(self, answer: str) -> bool:
        """Whether an answer of its counts as yes."""
        ...


class AnsweringJudge(Judge, Protocol):
    """A judge in this process."""

    def answers(self, asked: Iterable[tuple[Image.Image, str]], batch_size: int) -> Iterator[str]:
        """The answer to each question about an image, in order."""
        ...


@dataclass(frozen=True)
class FileJudge:
    """A judge that reads questions and writes answers somewhere else."""

    metric: str
    identity: dict[str, Any]
    is_exact: bool = False
    """Whether only the very answer "yes" counts, as for the official judge."""

    def is_yes(self, answer: str) -> bool:
        return answer == "yes" if self.is_exact else leading_verdict(answer) is True


@dataclass(frozen=True)
class ModelJudge:
    """A model of this project as the judge."""

    pipeline: Pipeline
    metric: str
    identity: dict[str, Any]

    def is_yes(self, answer: str) -> bool:
        return leading_verdict(answer) is True

    def answer(self, image: Image.Image, question: str) -> str:
        """The answer to one question."""
        return next(self.answers([(image, question)], 1))

    def answers(self, asked: Iterable[tuple[Image.Image, str]], batch_size: int) -> Iterator[str]:
        requests = (AskRequest(MODEL_PROMPT.format(question=question), (image,)) for image, question in asked)
        return self.pipeline.ask_requests(
            requests, batch_size=batch_size, temperature=0.0, max_new_tokens=MAX_NEW_TOKENS
        )


def metric_of(config: DpgConfig) -> str:
    """The key of a judge's scores in results.json.

    Raises:
        EvaluationError: settings that do not belong together.
    """
    if config.judge == OFFICIAL:
        return "dpg"
    metric = f"dpg_{config.judge_name or config.judge}"
    if not NAME.fullmatch(metric):
        raise EvaluationError(
            f"dpg.judge_name is {config.judge_name!r}; give lower case letters, digits, '.', '-', '_'"
        )
    if config.judge == "file" and config.judge_name is None:
        raise EvaluationError("dpg.judge=file needs dpg.judge_name=NAME, the name that its scores will have")
    if config.judge == "model" and config.judge_model is None:
        raise EvaluationError("dpg.judge=model needs dpg.judge_model=CHECKPOINT")
    return metric


def open_judge(config: DpgConfig, load: Callable[[str], Pipeline]) -> Judge:
    """The judge that the settings name.

    Args:
        load: loads a model, for the judge that is one.
    Raises:
        EvaluationError: settings that do not belong together.
    """
    metric = metric_of(config)
    if config.judge != "model":
        return FileJudge(metric, {"judge": config.judge_name or config.judge}, is_exact=config.judge == OFFICIAL)
    assert config.judge_model is not None
    pipeline = load(config.judge_model)
    return ModelJudge(pipeline, metric, {"judge": config.judge_model, "weights": pipeline.describe()["weights"]})
