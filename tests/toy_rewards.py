# SPDX-License-Identifier: Apache-2.0
"""Rewards of an obvious property, for `grpo.rewards.<name>.function`."""

import math
from collections.abc import Sequence

import numpy as np

from unigen.rewards.judged import Judged


def redness(items: Sequence[Judged]) -> list[float]:
    """How much more red an image holds than green and blue, in [-1, 1]."""
    return [_redness(item) for item in items]


def redness_of_some(items: Sequence[Judged]) -> list[float]:
    """No number for about one image in three."""
    return [_redness(item) if int(1e6 * _means(item)[0]) % 3 else math.nan for item in items]


def sameness(items: Sequence[Judged]) -> list[float]:
    return [0.5] * len(items)


def _redness(item: Judged) -> float:
    red, green, blue = _means(item)
    return float(red - (green + blue) / 2)


def _means(item: Judged) -> np.ndarray:
    return np.asarray(item.image, dtype=np.float64).mean(axis=(0, 1)) / 255
