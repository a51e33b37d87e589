# SPDX-License-Identifier: Apache-2.0
"""The world of shapes as a reward: what its detector finds in an image, held against what the prompt asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

from unigen.errors import RewardError
from unigen.rewards.judged import Judged
from unigen.rewards.shapes import judge_image


class DetectorReward:
    """The share of the prompt that is right, or whether all is (`is_strict`); in [0, 1]."""

    def __init__(self, is_strict: bool = False) -> None:
        self._is_strict = is_strict

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"kind": "detector", "strict": self._is_strict}

    def score(self, items: Sequence[Judged]) -> list[float]:
        """
        Raises:
            RewardError: of an item it is not known what the prompt asks for.
            EvaluationError: its entry is not of GenEval's schema.
        """
        return [self._score_one(item) for item in items]

    def _score_one(self, item: Judged) -> float:
        if item.entry is None:
            raise RewardError("what its prompt asks for is not known: its data needs entries of GenEval's schema")
        verdict = judge_image(item.entry, item.image)
        return float(verdict.correct) if self._is_strict else verdict.share
