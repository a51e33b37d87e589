# SPDX-License-Identifier: Apache-2.0
"""Answers that were given already, kept by all that they depend on.

lmms-eval keeps answers by the name of a model, and only when all are there. Here each is kept as soon as it is given, by the
hash of the weights: another checkpoint at the same path starts anew, and a run that was killed goes on where it was.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigen.data.ledger import LedgerWriter, read_ledger
from unigen.evaluation.lmms.writing import Writing
from unigen.generation.pipeline import AskRequest


def weights_key(model: Mapping[str, Any]) -> str:
    """A name for what `Pipeline.describe()` says of weights and number format; never mistaken for a number."""
    content = json.dumps([model.get("weights", {}), model.get("dtype")], sort_keys=True)
    return "sha256-" + hashlib.sha256(content.encode()).hexdigest()[:16]


def answer_key(weights: str, request: AskRequest, writing: Writing) -> str:
    """The name of an answer: weights, words, pixels, settings, and the seed where it matters."""
    seed = request.seed if writing.is_random else None
    content = [weights, request.question, request.history, writing.settings, seed]
    digest = hashlib.sha256(json.dumps(content).encode())
    for image in request.images:
        digest.update(f"{image.mode} {image.size}".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


class AnswerLedger:
    """The answers in a folder, of all ranks, and those that this rank adds. Without a folder it remembers nothing."""

    def __init__(self, folder: Path | None, rank: int) -> None:
        self._answers: dict[str, str] = {}
        self._writer: LedgerWriter | None = None
        if folder is not None:
            self._answers = {key: record["answer"] for key, record in read_ledger(folder).items()}
            self._writer = LedgerWriter(folder, rank)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> str:
        return self._answers[key]

    def add(self, key: str, answer: str, about: Mapping[str, Any]) -> None:
        """Keep an answer; `about` is for people who read the file."""
        if self._writer is not None:
            self._answers[key] = answer
            self._writer.append(key, {**about, "answer": answer})
