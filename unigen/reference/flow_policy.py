# SPDX-License-Identifier: Apache-2.0
"""The loss of a policy that draws along a flow, term by term and image by image, from the definitions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from unigen.generation.flow import FlowDecoder, RolloutSettings
from unigen.models.text_states import PromptStates
from unigen.reference.flow_sampling import slow_velocity


@dataclass(frozen=True)
class SlowTerm:
    """One noisy step of one image."""

    prompt: PromptStates
    null: PromptStates | None
    number: int
    sample_Chw: Tensor
    next_Chw: Tensor
    old_log_prob: float
    advantage: float


def slow_transition(
    decoder: FlowDecoder,
    term: SlowTerm,
    sigmas: Sequence[float],
    settings: RolloutSettings,
    scale: float,
    *,
    is_masked: bool,
) -> Normal:
    """What may follow on the sample, with the gradient of the decoder."""
    x, t, following = term.sample_Chw, sigmas[term.number], sigmas[term.number + 1]
    null, level = term.null or term.prompt, settings.noise_level
    v = slow_velocity(decoder, term.prompt, null, scale, x[None], t, is_masked=is_masked)[0]
    if settings.kind == "cps":
        data, noise = x - t * v, x + (1 - t) * v
        kept, new = (following * turn(level * math.pi / 2) for turn in (math.cos, math.sin))
        return Normal((1 - following) * data + kept * noise, torch.tensor(new))
    s = level * math.sqrt(t / (1 - (sigmas[1] if t == 1 else t)))
    drift = v + s**2 / (2 * t) * (x + (1 - t) * v)
    return Normal(x + drift * (following - t), torch.tensor(s * math.sqrt(t - following)))


def slow_log_prob(found: Normal, term: SlowTerm, settings: RolloutSettings) -> Tensor:
    """Of the next sample, a mean over its elements; of the coefficient-preserving steps without the width."""
    if settings.kind == "cps":
        return -((term.next_Chw - found.mean) ** 2).mean()
    return found.log_prob(term.next_Chw).mean()


def slow_policy_loss(log_prob: Tensor, term: SlowTerm, clip_range: float) -> Tensor:
    """Minus the advantage times the ratio, as long as that gains."""
    ratio = (log_prob - term.old_log_prob).exp()
    if term.advantage > 0:
        return -term.advantage * ratio.clamp(max=1 + clip_range)
    return -term.advantage * ratio.clamp(min=1 - clip_range)


def slow_step_divergence(found: Normal, reference: Normal, step_length: float, form: str) -> Tensor:
    """Mean over elements; `released` leaves the length of the step out of the width."""
    exact = kl_divergence(found, reference).mean()
    return exact * step_length if form == "released" else exact
