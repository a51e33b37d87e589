# SPDX-License-Identifier: Apache-2.0
"""Drawing by masked-token prediction as a policy: images with how they came about.

A step draws all unknown codes from the softmax over the codebook at temperature 1 (guided, where there is guidance), and fixes
some of them. The log-probability of an image is the sum, over its steps, of those of the codes that were fixed there, under the
logits they were drawn from. WHICH of the drawn codes are kept is not part of the policy: that choice, by confidence and noise, is
taken as given, and the codes that were drawn and thrown away again count for nothing.

Legend: B images, S steps, I codes of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unigen.generation.maskgit import (
    MaskGitNoise,
    MaskGitSettings,
    fix_and_remask,
    nothing_known,
    open_steps,
    step_logits,
)
from unigen.generation.steps import Decoding
from unigen.models.unigen import UniGen
from unigen.sequence.vocabulary import Vocabulary


@dataclass(frozen=True)
class Trajectories:
    """Images, and the step at which each of their codes came to be: before step s those of earlier steps were known."""

    codes_BI: Tensor
    fixed_at_BI: Tensor
    """Number of the step, from 0."""
    log_probs_BI: Tensor
    """Of each code when it was fixed, float32."""

    def split(self) -> list["Trajectory"]:
        """One by one, on the CPU."""
        fields = (self.codes_BI, self.fixed_at_BI, self.log_probs_BI)
        return [Trajectory(*one) for one in zip(*(field.cpu() for field in fields), strict=True)]


@dataclass(frozen=True)
class Trajectory:
    """One of `Trajectories`."""

    codes_I: Tensor
    fixed_at_I: Tensor
    log_probs_I: Tensor


@torch.no_grad()
def draw_trajectories(
    model: UniGen,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    unconditional: Sequence[int],
    noise: MaskGitNoise,
    settings: MaskGitSettings,
    decoding: Decoding = "auto",
) -> Trajectories:
    """The images of `maskgit.draw_codes` for the same arguments, and how each came about."""
    advance, draws = open_steps(
        _fix_some_and_tell, model, vocabulary, prompts, unconditional, noise, settings, decoding
    )
    codes_BI, known_BI = nothing_known(noise)
    fixed_at_BI, log_probs_BI = torch.zeros_like(codes_BI), torch.zeros_like(noise.tokens_BSI[:, 0])
    for given in draws:
        codes_BI, now_known_BI, drawn_log_probs_BI = advance(codes_BI, known_BI, *given)
        # What is drawn again in later steps is written over, so that the step that fixed a code has the last word.
        log_probs_BI = torch.where(known_BI, log_probs_BI, drawn_log_probs_BI)
        fixed_at_BI = fixed_at_BI + ~now_known_BI
        known_BI = now_known_BI
    return Trajectories(codes_BI, fixed_at_BI, log_probs_BI)


def _fix_some_and_tell(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`maskgit.fix_some`, and the log-probability of each code as it stands then (B, I)."""
    *before, tokens_noise_BI, confidence_noise_BI, temperature, num_masked = arguments
    *_, codes_BI, known_BI = before
    logits_BIC = step_logits(*before)
    noise = (tokens_noise_BI, confidence_noise_BI)
    codes_BI, known_BI = fix_and_remask(logits_BIC, known_BI, codes_BI, noise, temperature, num_masked)
    log_probs_BIC = torch.log_softmax(logits_BIC.float(), dim=-1)
    return codes_BI, known_BI, log_probs_BIC.gather(-1, codes_BI[..., None])[..., 0]
