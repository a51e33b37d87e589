# SPDX-License-Identifier: Apache-2.0
"""How much of an image is masked, in training and along the steps of decoding (MaskGIT, Chang et al. 2022, section 3)."""

import math

import numpy as np

SCHEDULES = ("cosine", "linear", "square", "sigmoid")


def masked_ratio(schedule: str, progress: float) -> float:
    """Share of masked tokens at `progress` in [0, 1]; 1 at the beginning, 0 at the end."""
    if schedule == "cosine":
        return math.cos(math.pi / 2 * progress)
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "square":
        return 1.0 - progress**2
    assert schedule == "sigmoid", schedule
    low, high = (1 / (1 + math.exp(-edge)) for edge in (-3.0, 3.0))
    here = 1 / (1 + math.exp(-(6.0 * progress - 3.0)))
    return (high - here) / (high - low)


def draw_mask(generator: np.random.Generator, length: int, schedule: str, min_ratio: float = 0.0) -> np.ndarray:
    """Boolean mask (length,) of a training image: a uniform progress, then uniformly random positions, at least one."""
    ratio = max(masked_ratio(schedule, generator.uniform()), min_ratio)
    count = max(1, round(length * ratio))
    mask = np.zeros(length, dtype=bool)
    mask[generator.permutation(length)[:count]] = True
    return mask


def remasked_counts(length: int, steps: int, schedule: str) -> list[int]:
    """Tokens masked again after each decoding step.

    floor(length * ratio((s + 1) / steps)), kept so that every step fixes one while more than one is left. The count of the last
    step is 0: what it samples is final.
    """
    counts = []
    unknown = length
    for step in range(1, steps + 1):
        unknown = max(1, min(math.floor(length * masked_ratio(schedule, step / steps)), unknown - 1))
        counts.append(unknown)
    return [*counts[:-1], 0]
