# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of UAE's language model: captions of images and answers about them, by the next token.

Legend: B chats, L tokens, D width, T supervised tokens, P patches of all images, N images.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unigen.config.schema import TaskName
from unigen.data.batch import Batch, Sample, collate, count_targets
from unigen.data.draws import Draws
from unigen.data.preparation import blank_image
from unigen.data.sample import RawSample, Turn
from unigen.data.uae_preparation import ChatPreparer, SeenImage
from unigen.models.uae_adapters import Side
from unigen.objectives.cross_entropy import linear_cross_entropy
from unigen.sequence.layout import PADDING
from unigen.training.stages.stage import in_chunks
from unigen.training.stages.uae import UaeStage

TASK: TaskName = "mmu"


class CaptioningStage(UaeStage):
    """A row is one chat, padded behind to the longest of its batch; chats that are about as long go together."""

    adapted_side: ClassVar[Side] = "language_model"
    trained_parts: ClassVar[tuple[str, ...]] = ("llm.",)

    @property
    def prepare(self) -> ChatPreparer:
        return ChatPreparer(self.template, self._processor, self._config.model.max_text_tokens)

    def batches(self, samples: Sequence[Sample]) -> Iterator[Batch]:
        in_order = sorted(samples, key=lambda sample: sample.document.length)
        for chunk in in_chunks(in_order, self._config.training.rows_per_micro_batch):
            yield collate([[sample] for sample in chunk])

    def counts(self, samples: Sequence[Sample]) -> dict[str, int]:
        return count_targets(samples)

    def empty_batch(self) -> Batch:
        """A question that nobody answers."""
        turns = (Turn("user", "?"), Turn("assistant", ""))
        blank = blank_image(self.uae.config.image_resolution)
        sample = self.prepare(RawSample("", TASK, (blank,), turns=turns), Draws(0, "", 0))
        return replace(collate([[sample]]), supervised_T=torch.empty(0, dtype=torch.long))

    def forward(self, batch: Batch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        hidden_ND = self._states(batch).flatten(0, 1)
        head_VD = self.uae.llm.lm_head.weight
        targets_T = batch.targets_RL.flatten()[batch.supervised_T]
        weights_T = torch.full(targets_T.shape, scales.get(TASK, 0.0), device=hidden_ND.device)
        total, losses_T = linear_cross_entropy(hidden_ND[batch.supervised_T], head_VD, targets_T, weights_T)
        return total, {TASK: losses_T.sum()}

    def directly_read_parameters(self) -> Sequence[nn.Parameter]:
        return (self.uae.llm.lm_head.weight,)

    def _states(self, batch: Batch) -> Tensor:
        """Last states (B, L, D) of every token."""
        ids_BL, device = batch.input_ids_RL, batch.input_ids_RL.device
        images = [one for one in batch.feature_images if isinstance(one, SeenImage)]
        is_text_BL = (batch.visible.documents_RL != PADDING).long()
        if not images:
            return self.uae.hidden_states(ids_BL, is_text_BL) + self._nothing_seen(device)
        is_image_BL = ids_BL == self.uae.config.llm_config.image_token_id
        return self.uae.hidden_states(
            ids_BL,
            is_text_BL,
            mm_token_type_ids=is_image_BL.int(),  # without it the positions of images would silently be those of words
            **_pixels(images, device),
        )

    def _nothing_seen(self, device: torch.device) -> Tensor:
        """Zero, by way of the vision tower: all ranks have to go through it alike, whatever their chats are about."""
        image = self.prepare(RawSample("", TASK, (blank_image(1),)), Draws(0, "", 0)).feature_images
        pixels = _pixels([one for one in image if isinstance(one, SeenImage)], device)
        seen: Any = self.uae.llm.model.visual(pixels["pixel_values"], grid_thw=pixels["image_grid_thw"])
        return 0.0 * seen.pooler_output.sum()


def _pixels(images: Sequence[SeenImage], device: torch.device) -> dict[str, Tensor]:
    """Images as the vision tower takes them."""
    return {
        "pixel_values": torch.cat([one.patches_PD for one in images]).to(device),
        "image_grid_thw": torch.tensor([one.grid_thw for one in images], device=device),
    }
