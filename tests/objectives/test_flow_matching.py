# SPDX-License-Identifier: Apache-2.0
"""The stochastic step against its slow twin, its limits, and the schedule against diffusers' definition."""

import math
from itertools import pairwise

import pytest
import torch

from unigen.objectives.flow_matching import sampling_sigmas, shifted, stochastic_step
from unigen.reference.stochastic_flow import slow_log_prob, slow_step


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
