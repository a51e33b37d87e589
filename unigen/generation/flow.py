# SPDX-License-Identifier: Apache-2.0
"""Drawing along a flow from noise to an image: without noise on the way, or with it and with the log-probability of every step.

Legend: B images, C channels, h w sides of a latent, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unigen.generation.steps import Decoding, step_runner
from unigen.models.text_states import PromptStates, TextStates, join_states
from unigen.objectives.flow_matching import NoiseKind, Transition, at_least_float32, euler_step, noisy_step


class FlowDecoder(Protocol):
    """What knows which way an image lies."""

    def velocity(self, latents_BChw: Tensor, sigma_B: Tensor, text: TextStates) -> Tensor:
        """Velocity (B, C, h, w) of noisy latents at times in [0, 1]."""


@dataclass(frozen=True)
class FlowSettings:
    """How an image is drawn."""

    steps: int = 40
    guidance_scale: float = 5.0
    """How far the prompt is followed beyond what `cfg_null` says; 0 and 1 follow the prompt alone."""
    negative_prompt: str | None = None
    """In the place of the model's own, which None takes."""
    resolution: int | None = None
    """Side in pixels; None takes the model's own."""


@dataclass(frozen=True)
class RolloutSettings:
    """How images are drawn whose steps have probabilities. Defaults are those of Flow-GRPO."""

    steps: int = 10
    kind: NoiseKind = "sde"
    noise_level: float = 0.7
    window: tuple[int, int] | None = None
    """First noisy step and the one after the last; the others are without noise. None: all steps are noisy."""

    @property
    def noisy_steps(self) -> range:
        return range(*(self.window or (0, self.steps)))


@dataclass(frozen=True)
class Guidance:
    """What the decoder is told, and how far it follows."""

    text: TextStates
    """Of B prompts; with guidance of 2B texts, what guidance leads away from first."""
    scale: float


class RolledStep(NamedTuple):
    """One noisy step of a rollout."""

    number: int
    sample_BChw: Tensor
    next_BChw: Tensor
    log_prob_B: Tensor


class Rollout(NamedTuple):
    """Latents, and the noisy steps that led to them."""

    latents_BChw: Tensor
    steps: tuple[RolledStep, ...]


class LatentNoise:
    """Normal numbers in float32, each image's from a generator of its own: neither batch nor order change them."""

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device = tuple(shape), device

    def draw(self) -> Tensor:
        """The next numbers (B, *shape): first those that a drawing starts from, then those of each noisy step."""
        rows = [torch.randn(self._shape, generator=generator) for generator in self._generators]
        return torch.stack(rows).to(self._device)


def is_guided(scale: float) -> bool:
    """Whether drawing with this scale looks at more than the prompt."""
    return scale not in (0.0, 1.0)


def guide(prompts: Sequence[PromptStates], null: Sequence[PromptStates], scale: float, *, is_masked: bool) -> Guidance:
    """What the decoder is told of a batch of images.

    Args:
        null: what guidance leads each image away from.
        is_masked: whether the decoder does not see the padding of the shorter of a prompt and its null.
    """
    if not is_guided(scale):
        return Guidance(join_states(prompts, [one.length for one in prompts]), scale)
    pairs = list(zip(null, prompts, strict=True))
    texts = [*null, *prompts]
    if is_masked:
        return Guidance(join_states(texts, [one.length for one in texts]), scale)
    longest = [max(one.length for one in pair) for pair in pairs]
    return Guidance(join_states(texts, longest * 2), scale)


def guided_velocity(decoder: FlowDecoder, guidance: Guidance, latents_BChw: Tensor, sigma_B: Tensor) -> Tensor:
    """The velocity (B, C, h, w), at least in float32, that a drawing follows."""
    if not is_guided(guidance.scale):
        return at_least_float32(decoder.velocity(latents_BChw, sigma_B, guidance.text))
    both = at_least_float32(decoder.velocity(torch.cat([latents_BChw] * 2), torch.cat([sigma_B] * 2), guidance.text))
    away_BChw, towards_BChw = both.chunk(2)
    return away_BChw + guidance.scale * (towards_BChw - away_BChw)


@torch.no_grad()
def draw_latents(
    decoder: FlowDecoder,
    guidance: Guidance,
    noise_BChw: Tensor,
    sigmas_S: Tensor,
    on_step: Callable[[int], None] = lambda step: None,
    decoding: Decoding = "eager",
) -> Tensor:
    """Latents (B, C, h, w) in float32 by Euler's steps.

    Args:
        noise_BChw: what the drawing starts from.
        sigmas_S: times from 1 to 0, one more than there are steps.
        decoding: see `unigen.generation.steps`; `auto` runs eagerly, for a step is too much work to wait for the host.
    """
    num_steps, device = len(sigmas_S) - 1, noise_BChw.device
    run = step_runner(_euler_step, (decoder, guidance), "eager" if decoding == "auto" else decoding, device, num_steps)
    sigmas_SB = sigmas_S.to(device)[:, None].expand(-1, len(noise_BChw)).contiguous()
    latents_BChw = noise_BChw.float()
    for step in range(num_steps):
        (latents_BChw,) = run(latents_BChw, sigmas_SB[step], sigmas_SB[step + 1])
        on_step(step)
    return latents_BChw


def draw_with_gradient(
    decoder: FlowDecoder, guidance: Guidance, noise_BChw: Tensor, sigmas_S: Tensor, *, checkpoints: bool
) -> Tensor:
    """The same latents as of `draw_latents`, through which a gradient finds its way back to the decoder and the texts.

    Args:
        checkpoints: compute each step again in the backward pass, which then holds the activations of one step at a time.
    """
    sigmas_SB = sigmas_S.to(noise_BChw.device)[:, None].expand(-1, len(noise_BChw))
    latents_BChw = noise_BChw
    for now_B, next_B in pairwise(sigmas_SB):
        step = (decoder, guidance, latents_BChw, now_B, next_B)
        if checkpoints:
            (latents_BChw,) = checkpoint(_euler_step, *step, use_reentrant=False)
        else:
            (latents_BChw,) = _euler_step(*step)
    return latents_BChw


def transition(
    decoder: FlowDecoder,
    guidance: Guidance,
    sample_BChw: Tensor,
    numbers_B: Tensor,
    sigmas_S: Tensor,
    settings: RolloutSettings,
) -> Transition:
    """The distribution of what follows on each sample, in float32, with the gradient of the decoder.

    Args:
        numbers_B: of the noisy step that each sample is at.
        sigmas_S: times from 1 to 0, one more than `settings.steps`.
    """
    times_S, places_B = sigmas_S.to(sample_BChw.device), numbers_B.to(sample_BChw.device)
    sigma_B, next_B = times_S[places_B], times_S[places_B + 1]
    velocity = guided_velocity(decoder, guidance, sample_BChw, sigma_B)
    return noisy_step(settings.kind, sample_BChw, velocity, sigma_B, next_B, settings.noise_level, sigmas_S[1])


@torch.no_grad()
def roll_out(
    decoder: FlowDecoder, guidance: Guidance, noise: LatentNoise, sigmas_S: Tensor, settings: RolloutSettings
) -> Rollout:
    """Latents and the noisy steps on the way to them, everything but the decoder in float32.

    Args:
        sigmas_S: times from 1 to 0, one more than `settings.steps`.
    """
    latents_BChw = noise.draw()
    sigmas_SB = sigmas_S.to(latents_BChw.device)[:, None].expand(-1, len(latents_BChw))
    steps = []
    for number in range(settings.steps):
        sigma_B, next_B = sigmas_SB[number], sigmas_SB[number + 1]
        if number not in settings.noisy_steps:
            velocity = guided_velocity(decoder, guidance, latents_BChw, sigma_B)
            latents_BChw = euler_step(latents_BChw, velocity, sigma_B, next_B)
            continue
        numbers_B = torch.full((len(latents_BChw),), number)
        found = transition(decoder, guidance, latents_BChw, numbers_B, sigmas_S, settings)
        next_BChw = found.mean + found.std * noise.draw()
        steps.append(RolledStep(number, latents_BChw, next_BChw, found.log_prob(next_BChw)))
        latents_BChw = next_BChw
    return Rollout(latents_BChw, tuple(steps))


def _euler_step(
    decoder: FlowDecoder, guidance: Guidance, latents_BChw: Tensor, sigma_B: Tensor, next_B: Tensor
) -> tuple[Tensor]:
    velocity = guided_velocity(decoder, guidance, latents_BChw, sigma_B)
    return (euler_step(latents_BChw, velocity, sigma_B, next_B),)
