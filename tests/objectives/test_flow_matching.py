# SPDX-License-Identifier: Apache-2.0
"""The stochastic steps against their slow twins, their limits, the regression, and the schedule."""

import math
from itertools import pairwise

import pytest
import torch

from unigen.objectives.flow_matching import (
    NoiseKind,
    euler_step,
    flow_losses,
    logit_normal_sigmas,
    loss_weights,
    noised,
    noisy_step,
    preserving_step,
    sampling_sigmas,
    shifted,
    stochastic_step,
    velocity_target,
)
from unigen.reference.stochastic_flow import slow_log_prob, slow_preserving_step, slow_step


@pytest.mark.parametrize(("t", "next_t"), [(1.0, 0.9), (0.7, 0.45), (0.02, 0.0)])
def test_a_step_is_that_of_the_slow_twin_in_every_element(t: float, next_t: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, v, following = (torch.randn(2, 3, 2, 2, generator=generator) for _ in range(3))
    sigma_B, next_B = torch.full((2,), t), torch.full((2,), next_t)
    found = stochastic_step(x, v, sigma_B, next_B, 0.7, 0.95)
    for sample in range(2):
        slow = [
            slow_step(float(a), float(b), t, next_t, 0.7, 0.95)
            for a, b in zip(x[sample].flatten(), v[sample].flatten(), strict=True)
        ]
        means = [mean for mean, _ in slow]
        torch.testing.assert_close(found.mean[sample].flatten(), torch.tensor(means), rtol=1e-5, atol=1e-5)
        assert float(found.std[sample].flatten()) == pytest.approx(slow[0][1], rel=1e-5)
        expected = slow_log_prob(following[sample].flatten().tolist(), means, slow[0][1])
        assert float(found.log_prob(following)[sample]) == pytest.approx(expected, rel=1e-4)


def test_without_noise_a_step_is_eulers_and_has_no_width() -> None:
    x, v = torch.randn(1, 4), torch.randn(1, 4)
    found = stochastic_step(x, v, torch.tensor([0.6]), torch.tensor([0.5]), 0.0, 0.9)
    torch.testing.assert_close(found.mean, x - 0.1 * v)
    assert float(found.std) == 0.0


def test_a_step_in_half_precision_is_computed_in_float32() -> None:
    x, v = (torch.randn(2, 8).bfloat16() for _ in range(2))
    sigma_B, next_B = torch.tensor([0.9, 0.5]), torch.tensor([0.8, 0.4])
    found = stochastic_step(x, v, sigma_B, next_B, 0.7, 0.95)
    assert found.mean.dtype is found.std.dtype is torch.float32
    assert torch.equal(found.mean, stochastic_step(x.float(), v.float(), sigma_B, next_B, 0.7, 0.95).mean)


def test_the_stochastic_path_keeps_the_marginals_of_the_path_without_noise() -> None:
    # Data is one point: the velocity at (x, t) is (x - data) / t, and x at time t has mean (1 - t) data and std t.
    generator = torch.Generator().manual_seed(1)
    data, sigmas = 2.0, torch.linspace(0.99, 0.2, 400)
    x = (1 - 0.99) * data + 0.99 * torch.randn(20000, 1, generator=generator)
    for t, next_t in pairwise(sigmas):
        shape = (len(x),)
        found = stochastic_step(x, (x - data) / t, t.expand(shape), next_t.expand(shape), 0.7, sigmas[1])
        x = found.mean + found.std * torch.randn(x.shape, generator=generator)
    assert float(x.mean()) == pytest.approx(0.8 * data, abs=0.02)
    assert float(x.std()) == pytest.approx(0.2, rel=0.05)


def test_a_schedule_falls_from_one_to_nothing_and_a_shift_moves_it_towards_noise() -> None:
    plain, moved = sampling_sigmas(8, 1.0), sampling_sigmas(8, 3.0)
    for sigmas in (plain, moved):
        assert (float(sigmas[0]), float(sigmas[-1])) == (1.0, 0.0)
        assert bool((sigmas.diff() < 0).all())
    assert bool((moved[1:-1] > plain[1:-1]).all())
    assert shifted(0.5, 3.0) == pytest.approx(0.75)
    assert math.isclose(shifted(0.3, 1.0), 0.3)


@pytest.mark.parametrize(("t", "next_t"), [(1.0, 0.9), (0.7, 0.45), (0.02, 0.0)])
@pytest.mark.parametrize("noise_level", [0.0, 0.8, 1.0])
def test_a_coefficient_preserving_step_is_that_of_the_slow_twin(t: float, next_t: float, noise_level: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, v, following = (torch.randn(2, 3, generator=generator) for _ in range(3))
    found = preserving_step(x, v, torch.full((2,), t), torch.full((2,), next_t), noise_level)
    for sample in range(2):
        slow = [
            slow_preserving_step(float(a), float(b), t, next_t, noise_level)
            for a, b in zip(x[sample], v[sample], strict=True)
        ]
        torch.testing.assert_close(found.mean[sample], torch.tensor([mean for mean, _ in slow]), rtol=1e-5, atol=1e-5)
        assert float(found.std[sample]) == pytest.approx(slow[0][1], abs=1e-7)
        distance = sum((float(y) - mean) ** 2 for y, (mean, _) in zip(following[sample], slow, strict=True)) / 3
        assert float(found.log_prob(following)[sample]) == pytest.approx(-distance, rel=1e-4)


@pytest.mark.parametrize("kind", ["sde", "cps"])
def test_without_noise_every_kind_of_step_is_eulers(kind: NoiseKind) -> None:
    x, v = torch.randn(2, 4), torch.randn(2, 4)
    sigma_B, next_B = torch.tensor([0.6, 0.9]), torch.tensor([0.5, 0.2])
    found = noisy_step(kind, x, v, sigma_B, next_B, 0.0, 0.95)
    torch.testing.assert_close(found.mean, euler_step(x, v, sigma_B, next_B), rtol=1e-5, atol=1e-6)
    assert float(found.std.abs().max()) == 0.0


def test_a_coefficient_preserving_path_keeps_the_marginals_too() -> None:
    generator = torch.Generator().manual_seed(1)
    data, sigmas = 2.0, torch.linspace(0.99, 0.2, 20)
    x = (1 - 0.99) * data + 0.99 * torch.randn(20000, 1, generator=generator)
    for t, next_t in pairwise(sigmas):
        shape = (len(x),)
        found = preserving_step(x, (x - data) / t, t.expand(shape), next_t.expand(shape), 0.8)
        x = found.mean + found.std * torch.randn(x.shape, generator=generator)
    assert float(x.mean()) == pytest.approx(0.8 * data, abs=0.02)
    assert float(x.std()) == pytest.approx(0.2, rel=0.05)


def test_the_velocity_leads_from_any_point_of_the_path_back_to_data_and_on_to_noise() -> None:
    data, noise = torch.randn(3, 2, 2), torch.randn(3, 2, 2)
    sigma_B = torch.tensor([0.1, 0.5, 0.9])
    point, velocity = noised(data, noise, sigma_B), velocity_target(data, noise)
    torch.testing.assert_close(euler_step(point, velocity, sigma_B, torch.zeros(3)), data, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(euler_step(point, velocity, sigma_B, torch.ones(3)), noise, rtol=1e-5, atol=1e-5)


def test_the_regression_is_a_weighted_mean_over_the_elements_of_a_sample() -> None:
    velocity, target = torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]]), torch.zeros(2, 1, 2)
    assert flow_losses(velocity, target).tolist() == [2.5, 4.5]
    assert flow_losses(velocity, target, torch.tensor([2.0, 0.0])).tolist() == [5.0, 0.0]
    half = flow_losses(velocity.bfloat16(), target.bfloat16() + 1e-3)
    assert half.dtype is torch.float32


def test_times_follow_the_logit_normal_distribution_and_weights_their_formulas() -> None:
    normal_B = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    sigma_B = logit_normal_sigmas(normal_B, mean=0.5, std=0.8)
    assert bool(((sigma_B > 0) & (sigma_B < 1)).all())
    assert float(torch.logit(sigma_B).mean()) == pytest.approx(0.5, abs=0.02)
    assert float(torch.logit(sigma_B).std()) == pytest.approx(0.8, abs=0.02)
    times = torch.tensor([0.25, 0.5])
    assert loss_weights(times, "none").tolist() == [1, 1]
    assert loss_weights(times, "sigma_sqrt").tolist() == [16, 4]
    assert loss_weights(times, "cosmap").tolist() == pytest.approx([2 / (math.pi * 0.625), 4 / math.pi])
