# SPDX-License-Identifier: Apache-2.0
"""Drawing along a flow, image by image, prompt and negative apart, each text only as long as the decoder may look at it."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unigen.generation.flow import FlowDecoder
from unigen.models.text_states import PromptStates, TextStates
from unigen.reference.stochastic_flow import slow_log_prob, slow_preserving_step, slow_step


def slow_velocity(
    decoder: FlowDecoder,
    prompt: PromptStates,
    null: PromptStates,
    scale: float,
    latents_1Chw: Tensor,
    sigma: float,
    *,
    is_masked: bool,
) -> Tensor:
    """The guided velocity of one image."""
    time_1 = torch.tensor([sigma])
    if scale in (0.0, 1.0):
        return decoder.velocity(latents_1Chw, time_1, _text(prompt, prompt.length))
    longest = max(prompt.length, null.length)
    towards = decoder.velocity(latents_1Chw, time_1, _text(prompt, prompt.length if is_masked else longest))
    away = decoder.velocity(latents_1Chw, time_1, _text(null, null.length if is_masked else longest))
    return away + scale * (towards - away)


def draw_slowly(
    decoder: FlowDecoder,
    prompts: Sequence[PromptStates],
    null: PromptStates,
    scale: float,
    noise_BChw: Tensor,
    sigmas: Sequence[float],
    *,
    is_masked: bool,
) -> Tensor:
    """Latents of all images."""
    drawn = []
    for prompt, noise_Chw in zip(prompts, noise_BChw, strict=True):
        latents = noise_Chw[None]
        for now, following in pairwise(sigmas):
            velocity = slow_velocity(decoder, prompt, null, scale, latents, now, is_masked=is_masked)
            latents = latents + (following - now) * velocity
        drawn.append(latents)
    return torch.cat(drawn)


def slow_noisy_step(
    kind: str,
    sample: Tensor,
    velocity: Tensor,
    sigmas: Sequence[float],
    number: int,
    noise_level: float,
    following: Tensor,
) -> tuple[Tensor, float, float]:
    """Mean, standard deviation and log-probability of one sample's step, element by element."""
    values = zip(sample.flatten().tolist(), velocity.flatten().tolist(), strict=True)
    now, after = sigmas[number], sigmas[number + 1]
    if kind == "cps":
        found = [slow_preserving_step(x, v, now, after, noise_level) for x, v in values]
    else:
        found = [slow_step(x, v, now, after, noise_level, sigmas[1]) for x, v in values]
    means = [mean for mean, _ in found]
    targets = following.flatten().tolist()
    if kind == "cps":
        log_prob = -sum((y - mean) ** 2 for y, mean in zip(targets, means, strict=True)) / len(means)
    else:
        log_prob = slow_log_prob(targets, means, found[0][1])
    return torch.tensor(means).view(sample.shape), found[0][1], log_prob


def _text(one: PromptStates, length: int) -> TextStates:
    padding = [one.padding_E[None]] * (length - one.length)
    return TextStates(torch.cat([one.states_TE, *padding])[None], None)
