# SPDX-License-Identifier: Apache-2.0
"""Advantages and the clipped loss of group-relative policy optimisation, one number at a time."""

import math
from collections.abc import Sequence

import numpy as np


def group_advantages_slowly(
    rewards: Sequence[float], groups: Sequence[object], deviation: str, most: float = 5.0
) -> list[float]:
    """See `unigen.objectives.policy_gradient.group_advantages`."""
    present = [reward for reward in rewards if math.isfinite(reward)]
    found = []
    for reward, group in zip(rewards, groups, strict=True):
        own = [r for r, g in zip(rewards, groups, strict=True) if g == group and math.isfinite(r)]
        if not math.isfinite(reward) or len(own) < 2 or max(own) - min(own) <= 1e-6:
            found.append(0.0)
            continue
        scale = np.std(own) if deviation == "group" else np.std(present)
        advantage = float((reward - np.mean(own)) / (scale + 1e-4))
        found.append(min(most, max(-most, advantage)))
    return found


def clipped_loss_slowly(log_prob: float, old_log_prob: float, advantage: float, clip_range: float) -> float:
    """See `unigen.objectives.policy_gradient.clipped_losses`."""
    ratio = math.exp(log_prob - old_log_prob)
    if advantage > 0:
        return -advantage * min(ratio, 1 + clip_range)
    return -advantage * max(ratio, 1 - clip_range)


def normal_divergence_slowly(mean: np.ndarray, reference_mean: np.ndarray, std: float) -> float:
    """Mean over elements of KL(N(mean, std) | N(reference_mean, std)), by a sum over a fine grid of each."""
    values = []
    for one, other in zip(mean.ravel(), reference_mean.ravel(), strict=True):
        grid = np.linspace(one - 10 * std, one + 10 * std, 20001)
        logs = -((grid - one) ** 2) / (2 * std**2) - math.log(std * math.sqrt(2 * math.pi))
        other_logs = -((grid - other) ** 2) / (2 * std**2) - math.log(std * math.sqrt(2 * math.pi))
        values.append(float(np.sum(np.exp(logs) * (logs - other_logs)) * (grid[1] - grid[0])))
    return float(np.mean(values))
