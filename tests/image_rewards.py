# SPDX-License-Identifier: Apache-2.0
"""Rewards for obvious properties of images, for `grpo.rewards` of kind callable."""

from collections.abc import Sequence

import numpy as np

from unigen.rewards import Judged


def redness(items: Sequence[Judged]) -> list[float]:
    """How much more red than green and blue there is, in [-1, 1]."""
    means = [np.asarray(item.image, dtype=float).reshape(-1, 3).mean(axis=0) / 255 for item in items]
    return [float(red - (green + blue) / 2) for red, green, blue in means]


def redness_if_bright(items: Sequence[Judged]) -> list[float]:
    """The same, and not a number for an image whose first pixel is dark."""
    dark = [float(np.asarray(item.image)[0, 0].mean()) < 110 for item in items]
    return [float("nan") if is_dark else value for is_dark, value in zip(dark, redness(items), strict=True)]


def sameness(items: Sequence[Judged]) -> list[float]:
    """Minus the mean distance of an image from its original."""
    pairs = [(np.asarray(item.image, dtype=float), np.asarray(item.original, dtype=float)) for item in items]
    return [-float(np.abs(image - original).mean()) / 255 for image, original in pairs]


def nothing(items: Sequence[Judged]) -> list[float]:
    """The same for all."""
    return [0.5] * len(items)
