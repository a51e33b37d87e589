# SPDX-License-Identifier: Apache-2.0
"""Flow matching: the straight path between data and noise, its regression, its schedule, and steps along it with and without
noise.

Time is sigma in [0, 1]: 0 is data, 1 is noise, x = (1 - sigma) data + sigma noise, and the velocity is noise - data. The
stochastic steps keep the marginals of the path: that of Flow-GRPO (arXiv 2505.05470, equation 9) adds noise to what it has, the
coefficient-preserving one (CPS) puts new noise in the place of old.

Legend: B samples, S steps; `...` are the dimensions of a latent.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

NUM_TRAIN_STEPS = 1000
"""Of the published schedules, which fixes the smallest sigma."""
Weighting = Literal["none", "cosmap", "sigma_sqrt"]
"""How much each time counts in the regression (Esser et al., arXiv 2403.03206, section 3.1)."""
NoiseKind = Literal["sde", "cps"]
"""Which stochastic step."""


def logit_normal_sigmas(normal_B: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Times to train at, from numbers of the standard normal distribution: the middle of the path more often than its ends."""
    return torch.sigmoid(mean + std * normal_B.float())


def noised(data: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
    """The point of the path (B, ...) at each sample's time."""
    sigma = _beside(sigma_B, data)
    return (1 - sigma) * data + sigma * noise


def velocity_target(data: Tensor, noise: Tensor) -> Tensor:
    """What the velocity of the path is everywhere along it."""
    return noise - data


def loss_weights(sigma_B: Tensor, weighting: Weighting) -> Tensor:
    """Weight (B) of each time."""
    if weighting == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigma_B + 2 * sigma_B**2))
    return sigma_B**-2 if weighting == "sigma_sqrt" else torch.ones_like(sigma_B)


def flow_losses(velocity: Tensor, target: Tensor, weight_B: Tensor | None = None) -> Tensor:
    """Squared error (B) of each sample, a mean over its elements in float32, times its weight."""
    losses_B = ((velocity.float() - target.float()) ** 2).flatten(1).mean(dim=1)
    return losses_B if weight_B is None else losses_B * weight_B


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


class UnscaledTransition(Transition):
    """The same, whose log-density is taken without the width: for CPS, whose last steps have hardly any."""

    def log_prob(self, next_sample: Tensor) -> Tensor:
        """Minus the mean squared distance (B) to the mean."""
        return -((next_sample - self.mean) ** 2).flatten(1).mean(dim=1)


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
    sigma, step = _beside(sigma_B.float(), sample), _beside((next_sigma_B - sigma_B).float(), sample)
    scale = _beside(diffusion_scale(sigma_B.float(), noise_level, second_sigma), sample)
    kept = 1 + scale**2 * step / (2 * sigma)
    moved = (1 + scale**2 * (1 - sigma) / (2 * sigma)) * step
    return Transition(sample.float() * kept + velocity.float() * moved, scale * (-step).sqrt())


def preserving_step(
    sample: Tensor, velocity: Tensor, sigma_B: Tensor, next_sigma_B: Tensor, noise_level: float
) -> Transition:
    """One coefficient-preserving step in float32: of the noise that the next time has, the share sin(a pi / 2) is new.

    Args:
        noise_level: a in [0, 1]; 0 makes the step deterministic, at 1 all noise is new.
    """
    sigma, next_sigma = _beside(sigma_B.float(), sample), _beside(next_sigma_B.float(), sample)
    std = next_sigma * math.sin(noise_level * math.pi / 2)
    data = sample.float() - sigma * velocity.float()
    noise = sample.float() + (1 - sigma) * velocity.float()
    return UnscaledTransition((1 - next_sigma) * data + (next_sigma**2 - std**2).clamp(min=0).sqrt() * noise, std)


def noisy_step(
    kind: NoiseKind,
    sample: Tensor,
    velocity: Tensor,
    sigma_B: Tensor,
    next_sigma_B: Tensor,
    noise_level: float,
    second_sigma: Tensor | float,
) -> Transition:
    """The step of a kind; see `stochastic_step` and `preserving_step`."""
    if kind == "cps":
        return preserving_step(sample, velocity, sigma_B, next_sigma_B, noise_level)
    return stochastic_step(sample, velocity, sigma_B, next_sigma_B, noise_level, second_sigma)


def euler_step(sample: Tensor, velocity: Tensor, sigma_B: Tensor, next_sigma_B: Tensor) -> Tensor:
    """One step without noise, in float32 or a wider type that comes in."""
    return at_least_float32(sample) + _beside((next_sigma_B - sigma_B).float(), sample) * at_least_float32(velocity)


def at_least_float32(values: Tensor) -> Tensor:
    """The same numbers in float32, where their type is narrower."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _beside(values_B: Tensor, sample: Tensor) -> Tensor:
    """One value a sample, shaped to meet all of its elements."""
    return values_B.view(-1, *[1] * (sample.ndim - 1))
