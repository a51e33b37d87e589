# SPDX-License-Identifier: Apache-2.0
"""The noisy steps of drawings as what a policy learns from: kept image by image, and put into batches.

Legend: B terms of a batch, C channels, h w sides of a latent, T tokens, E width of a text's state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unigen.generation import flow
from unigen.models.text_states import PromptStates, TextStates
from unigen.training.stages.policy import PolicyBatch, Rollout


@dataclass(frozen=True)
class FlowStep:
    """A noisy step that an image came by."""

    number: int
    sample_Chw: Tensor
    next_Chw: Tensor
    log_prob: Tensor
    """Of the next sample, by the decoder that drew it."""


@dataclass(frozen=True)
class FlowRecord:
    """How an image came about."""

    prompt: PromptStates
    null: PromptStates | None
    """What guidance led away from; None without guidance."""
    steps: tuple[FlowStep, ...]


@dataclass(frozen=True)
class Guiding:
    """How what the decoder is told is put together: for drawing and for learning in the same way."""

    scale: float
    is_masked: bool

    def of(self, prompts: Sequence[PromptStates], nulls: Sequence[PromptStates | None]) -> flow.Guidance:
        known = [null for null in nulls if null is not None]
        return flow.guide(prompts, known, self.scale, is_masked=self.is_masked)


def records_of(
    drawn: flow.Rollout, prompts: Sequence[PromptStates], nulls: Sequence[PromptStates | None]
) -> list[FlowRecord]:
    """Of each image of a batch."""
    return [
        FlowRecord(
            prompt,
            null,
            tuple(
                FlowStep(one.number, one.sample_BChw[row], one.next_BChw[row], one.log_prob_B[row])
                for one in drawn.steps
            ),
        )
        for row, (prompt, null) in enumerate(zip(prompts, nulls, strict=True))
    ]


def batch_of(rollouts: Sequence[Rollout], place: int, guiding: Guiding, image_tokens: int) -> PolicyBatch:
    """One noisy step of each of some rollouts.

    Args:
        place: which of a record's steps.
        image_tokens: of an image, in the decoder.
    """
    records = [rollout.record for rollout in rollouts]
    steps = [record.steps[place] for record in records]
    text = guiding.of([one.prompt for one in records], [one.null for one in records]).text
    rows, width = text.states_BTE.shape[:2]
    hidden = 0 if text.is_visible_BT is None else int((~text.is_visible_BT).sum())
    tensors = {
        "samples_BChw": torch.stack([step.sample_Chw for step in steps]),
        "next_BChw": torch.stack([step.next_Chw for step in steps]),
        "numbers_B": torch.tensor([step.number for step in steps]),
        "old_log_probs_B": torch.stack([step.log_prob for step in steps]),
        "advantages_B": torch.tensor([rollout.advantage for rollout in rollouts]),
        "text_BTE": text.states_BTE,
        **({} if text.is_visible_BT is None else {"visible_BT": text.is_visible_BT}),
    }
    slots = rows * (image_tokens + width)
    return PolicyBatch([one.judged.key for one in rollouts], tensors, slots - hidden, slots, len(rollouts))


def empty_terms(latent_shape: Sequence[int], text_width: int) -> PolicyBatch:
    """A batch of no terms, through which the decoder's weights still have a gradient, of zeros."""
    latents = {name: torch.zeros(0, *latent_shape) for name in ("samples_BChw", "next_BChw")}
    values = {name: torch.zeros(0) for name in ("old_log_probs_B", "advantages_B")}
    numbers_B, text_BTE = torch.zeros(0, dtype=torch.long), torch.zeros(0, 1, text_width)
    return PolicyBatch([], {**latents, **values, "numbers_B": numbers_B, "text_BTE": text_BTE})


def texts_of(batch: PolicyBatch) -> TextStates:
    """What the decoder is told in a batch; with guidance, what it leads away from comes first."""
    return TextStates(batch.tensors["text_BTE"], batch.tensors.get("visible_BT"))
