# SPDX-License-Identifier: Apache-2.0
"""Question files and answer files of the LLaVA 1.5 protocol, and what a scorer makes of them.

A question is a line `{"question_id", "image", "text"}`, perhaps with `category`; an answer is a line `{"question_id", "prompt",
"text", "answer_id", "model_id", "metadata"}`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unigen.errors import EvaluationError
from unigen.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Answered:
    """A question of the file, and what the model wrote."""

    question: Mapping[str, Any]
    text: str

    @property
    def id(self) -> str:
        return str(self.question["question_id"])

    def line(self, model: str) -> dict[str, Any]:
        """The line of the answer file; the same answer to the same question has the same id."""
        digest = hashlib.sha256("|".join((model, self.id, self.question["text"], self.text)).encode()).hexdigest()
        return {
            "question_id": self.question["question_id"],
            "prompt": self.question["text"],
            "text": self.text,
            "answer_id": digest[:22],
            "model_id": model,
            "metadata": {},
        }


@dataclass(frozen=True)
class Files:
    """Where a benchmark's files lie."""

    questions: Path
    images: Path
    truth: Path | None
    """None where nobody but a server knows the right answers."""
    output: Path
    """Folder of what a scorer writes."""

    @property
    def known_truth(self) -> Path:
        """Of a benchmark that always has one."""
        assert self.truth is not None
        return self.truth


@dataclass(frozen=True)
class Scores:
    """What a benchmark says: numbers with their 95% intervals, and facts besides."""

    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Numbers without an interval."""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """As results.json has it."""
        metrics = {**{name: one.value for name, one in self.estimates.items()}, **self.numbers}
        return {
            "metrics": metrics,
            "intervals": {name: one.interval for name, one in self.estimates.items()},
            **self.facts,
        }


def read_content(path: Path, what: str) -> Any:
    """The content of a JSON file of a benchmark.

    Raises:
        EvaluationError: it is not there, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read as {what}: {' '.join(str(error).split())}") from error


def require_found(missing: Sequence[str], path: Path, what: str) -> None:
    """Raises EvaluationError where `path` lacks what a question needs."""
    if missing:
        raise EvaluationError(
            f"{path} has no {what} of {len(missing)} questions (first {missing[0]}); give the right file"
        )
