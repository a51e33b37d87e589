# SPDX-License-Identifier: Apache-2.0
"""Advantages, the clipped loss and divergences: against their slow twins, and what holds of them by definition."""

import math

import numpy as np
import pytest
import torch

from unigen.objectives.policy_gradient import (
    clipped_losses,
    group_advantages,
    has_spread,
    token_divergence,
    transition_divergence,
)
from unigen.reference.policy_gradient import clipped_loss_slowly, group_advantages_slowly, normal_divergence_slowly

REWARDS = [0.1, 0.4, 0.9, 0.5, 0.5, 0.5, 0.2, math.nan, 0.8, math.nan, 0.3, math.nan]
GROUPS = ["a"] * 3 + ["b"] * 3 + ["c"] * 3 + ["d"] * 3


@pytest.mark.parametrize("deviation", ["group", "global"])
def test_advantages_equal_those_of_the_slow_twin(deviation: str) -> None:
    found = group_advantages(torch.tensor(REWARDS, dtype=torch.float64), GROUPS, deviation=deviation)  # type: ignore[arg-type]
    expected = group_advantages_slowly(REWARDS, GROUPS, deviation)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_groups_that_are_mixed_up_have_the_same_advantages() -> None:
    order = torch.randperm(len(REWARDS), generator=torch.Generator().manual_seed(0))
    rewards_N = torch.tensor(REWARDS)
    sorted_N = group_advantages(rewards_N, GROUPS)
    mixed_N = group_advantages(rewards_N[order], [GROUPS[index] for index in order])
    torch.testing.assert_close(mixed_N, sorted_N[order])


def test_equal_and_missing_rewards_give_no_advantage() -> None:
    advantages_N = group_advantages(torch.tensor(REWARDS), GROUPS)
    assert advantages_N[3:6].tolist() == [0, 0, 0]
    assert advantages_N[7] == 0
    assert advantages_N[9:].tolist() == [0, 0, 0]
    assert not has_spread(torch.tensor([0.5, 0.5, math.nan]))
    assert not has_spread(torch.tensor([0.5, math.nan]))
    assert has_spread(torch.tensor([0.5, 0.6, math.nan]))


def test_advantages_are_cut_to_the_largest_size() -> None:
    rewards_N = torch.tensor([0.0] * 99 + [1.0])
    assert group_advantages(rewards_N, ["a"] * 100, most=5.0).max() == 5
    assert group_advantages(rewards_N, ["a"] * 100, most=20.0).max() > 9


@pytest.mark.parametrize("advantage", [1.5, -0.7])
@pytest.mark.parametrize("change", [-0.5, -0.1, 0.0, 0.1, 0.5])
def test_the_clipped_loss_equals_the_slow_twin(advantage: float, change: float) -> None:
    found = clipped_losses(torch.tensor([-1.0 + change]), torch.tensor([-1.0]), torch.tensor([advantage]), 0.2)
    assert found.item() == pytest.approx(clipped_loss_slowly(-1.0 + change, -1.0, advantage, 0.2), rel=1e-5)


def test_a_ratio_past_the_range_has_a_gradient_only_where_it_does_harm() -> None:
    log_probs_B = torch.tensor([0.5, 0.5, -0.5, -0.5], requires_grad=True)
    clipped_losses(log_probs_B, torch.zeros(4), torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.2).sum().backward()
    assert log_probs_B.grad is not None
    assert (log_probs_B.grad == 0).tolist() == [True, False, False, True]


def test_at_the_old_policy_the_gradient_is_that_of_the_advantage_times_the_log_probability() -> None:
    log_probs_B = torch.tensor([-2.0, -3.0], requires_grad=True)
    clipped_losses(log_probs_B, log_probs_B.detach(), torch.tensor([1.5, -0.5]), 1e-4).sum().backward()
    assert log_probs_B.grad is not None
    assert log_probs_B.grad.tolist() == [-1.5, 0.5]


def test_the_divergence_of_tokens_is_that_of_the_distributions_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    policy_V = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(0)
    reference_V = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(0)
    estimates_V = token_divergence(policy_V, reference_V)
    assert (estimates_V >= 0).all()
    expected = (policy_V.exp() * (policy_V - reference_V)).sum()
    torch.testing.assert_close((policy_V.exp() * estimates_V).sum(), expected)


def test_the_exact_divergence_of_steps_is_that_of_normal_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, other = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)
    found = transition_divergence(mean[None], other[None], torch.full((1, 1, 1), 0.7).double(), torch.tensor([0.1]))
    expected = normal_divergence_slowly(mean.numpy(), other.numpy(), 0.7)
    np.testing.assert_allclose(found.item(), expected, rtol=1e-6)


def test_the_released_divergence_leaves_the_length_of_the_step_out() -> None:
    mean, other, std, length_B = torch.ones(2, 3), torch.zeros(2, 3), torch.full((2, 1), 0.5), torch.tensor([0.1, 0.2])
    exact_B = transition_divergence(mean, other, std, length_B)
    torch.testing.assert_close(transition_divergence(mean, other, std, length_B, "released"), exact_B * length_B)
