# SPDX-License-Identifier: Apache-2.0
"""Group-relative policy optimisation (Shao et al., arXiv 2402.03300): advantages within groups, the clipped loss, divergences.

Legend: N rollouts, in groups of the same prompt; B terms of a loss (tokens, or steps of a flow); `...` are a latent's dimensions.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Deviation = Literal["group", "global"]
DivergenceForm = Literal["exact", "released"]
EPSILON = 1e-4
"""Beside the deviation that advantages are divided by, as in Flow-GRPO."""
LEAST_SPREAD = 1e-6
"""Rewards of a group that lie closer together are equal: their differences are rounding."""


def group_advantages(
    rewards_N: Tensor, groups: Sequence[object], *, deviation: Deviation = "group", most: float = 5.0
) -> Tensor:
    """How much better (N) each rollout is than its group, in deviations; 0 where the group has no spread or a reward is missing.

    Args:
        rewards_N: not a number where a reward is missing; it counts neither in its group nor anywhere else.
        groups: of each rollout, by any name.
        deviation: of the group's own rewards, or of all of them; of a population, as numpy and Flow-GRPO take it.
        most: advantages are cut to this size.
    """
    advantages_N = torch.zeros_like(rewards_N, dtype=torch.float64)
    present_N = rewards_N.isfinite()
    overall = rewards_N[present_N].double().std(correction=0) if present_N.any() else None
    for name in dict.fromkeys(groups):
        members_N = torch.tensor([group == name for group in groups], device=rewards_N.device) & present_N
        rewards = rewards_N[members_N].double()
        if not has_spread(rewards):
            continue
        scale = rewards.std(correction=0) if deviation == "group" else overall
        assert scale is not None, "a group with spread has rewards"
        advantages_N[members_N] = (rewards - rewards.mean()) / (scale + EPSILON)
    return advantages_N.clamp(-most, most).to(rewards_N.dtype)


def has_spread(rewards_N: Tensor) -> bool:
    """Whether a group's rewards tell its members apart; missing ones do not count."""
    present_N = rewards_N[rewards_N.isfinite()]
    return len(present_N) > 1 and bool(present_N.max() - present_N.min() > LEAST_SPREAD)


def clipped_losses(log_probs_B: Tensor, old_log_probs_B: Tensor, advantages_B: Tensor, clip_range: float) -> Tensor:
    """Minus the advantage times the ratio of probabilities (B), which stops counting past 1 +- `clip_range` where it would gain.

    At the old policy its gradient is that of -advantage * log_prob.
    """
    ratios_B = (log_probs_B - old_log_probs_B).exp()
    clipped_B = ratios_B.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantages_B * ratios_B, -advantages_B * clipped_B)


def token_divergence(log_probs_B: Tensor, reference_log_probs_B: Tensor) -> Tensor:
    """Estimate (B) of KL(policy | reference) from drawn tokens, never below 0 (Schulman's k3; equation 4 of GRPO's paper)."""
    difference_B = reference_log_probs_B - log_probs_B
    return difference_B.exp() - difference_B - 1


def transition_divergence(
    mean: Tensor, reference_mean: Tensor, std: Tensor, step_length_B: Tensor, form: DivergenceForm = "exact"
) -> Tensor:
    """KL divergence (B) of two noisy steps of the same width, a mean over the elements of a latent, like their log-densities.

    Args:
        mean: of the policy's step, (B, ...).
        std: of both, (B, 1, ...).
        step_length_B: by how much the step changes the time, above 0.
        form: `released` leaves the step's length out of the width, as Flow-GRPO's code does.
    """
    width = std**2
    if form == "released":
        width = width / step_length_B.view(-1, *[1] * (mean.ndim - 1))
    return ((mean - reference_mean) ** 2 / (2 * width)).flatten(1).mean(dim=1)
