# SPDX-License-Identifier: Apache-2.0
"""Rewards of captions for tests, by `callable`: functions of the words alone, whatever was drawn from them."""

import math
from collections.abc import Sequence

from unigen.rewards.judged import Judged

LETTERS = "aeiou"


def share_of_vowels(items: Sequence[Judged]) -> list[float]:
    """How much of a caption are vowels."""
    return [sum(letter in LETTERS for letter in item.prompt.lower()) / max(1, len(item.prompt)) for item in items]


def always_one(items: Sequence[Judged]) -> list[float]:
    return [1.0] * len(items)


def missing_for_odd_lengths(items: Sequence[Judged]) -> list[float]:
    return [math.nan if len(item.prompt) % 2 else float(len(item.prompt)) for item in items]
