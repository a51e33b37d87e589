# SPDX-License-Identifier: Apache-2.0
"""Flow matching: the straight path between data and noise, its schedule, and steps along it with and without noise.

Time is sigma in [0, 1]: 0 is data, 1 is noise, x = (1 - sigma) data + sigma noise, and the velocity is noise - data. A stochastic
step is that of Flow-GRPO (arXiv 2505.05470, equation 9), which keeps the marginals of the path.

Legend: B samples, S steps; `...` are the dimensions of a latent.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

NUM_TRAIN_STEPS = 1000
"""Of the published schedules, which fixes the smallest sigma."""


def shifted(sigma: Tensor | float, shift: float) -> Tensor | float:
    """A time moved towards noise (Esser et al., arXiv 2403.03206, equation 23); a shift of 1 leaves it."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sampling_sigmas(num_steps: int, shift: float) -> Tensor:
    """Times (S + 1) of a sampler from 1 to 0, as diffusers' FlowMatchEulerDiscreteScheduler spaces them."""
    smallest = shifted(1 / NUM_TRAIN_STEPS, shift)
    assert isinstance(smallest, float)
    spaced_S = torch.linspace(1.0, smallest, num_steps, dtype=torch.float64)
    found_S = shifted(spaced_S, shift)
    assert isinstance(found_S, Tensor)
    return torch.cat([found_S, found_S.new_zeros(1)]).float()


class Transition(NamedTuple):
    """The normal distribution of a stochastic step."""

    mean: Tensor  # as the sample
    std: Tensor  # (B, 1, ...)

    def log_prob(self, next_sample: Tensor) -> Tensor:
        """Mean log-density (B) over the elements of a sample: a mean, not a sum, as Flow-GRPO clips it."""
        logs = -((next_sample - self.mean) ** 2) / (2 * self.std**2) - self.std.log() - 0.5 * math.log(2 * math.pi)
        return logs.flatten(1).mean(dim=1)


def diffusion_scale(sigma_B: Tensor, noise_level: float, second_sigma: Tensor | float) -> Tensor:
    """s(t) = a sqrt(t / (1 - t)) (B); at t = 1 the second time of the schedule stands in the denominator."""
    below_B = torch.where(sigma_B >= 1, torch.as_tensor(second_sigma, dtype=sigma_B.dtype), sigma_B)
    return noise_level * (sigma_B / (1 - below_B)).sqrt()


def stochastic_step(
    sample: Tensor,
    velocity: Tensor,
    sigma_B: Tensor,
    next_sigma_B: Tensor,
    noise_level: float,
    second_sigma: Tensor | float,
) -> Transition:
    """One step of the stochastic path, in float32 whatever comes in: in bfloat16 the log-densities mean nothing.

    Args:
        sample: (B, ...) at `sigma_B`.
        velocity: the prediction at it.
        next_sigma_B: the time to step to, below `sigma_B`.
        noise_level: a; 0 makes the step deterministic, with a std of 0.
        second_sigma: see `diffusion_scale`.
    """
    shape = (-1, *[1] * (sample.ndim - 1))
    sigma, step = sigma_B.float().view(shape), (next_sigma_B - sigma_B).float().view(shape)
    scale = diffusion_scale(sigma_B.float(), noise_level, second_sigma).view(shape)
    kept = 1 + scale**2 * step / (2 * sigma)
    moved = (1 + scale**2 * (1 - sigma) / (2 * sigma)) * step
    return Transition(sample.float() * kept + velocity.float() * moved, scale * (-step).sqrt())
