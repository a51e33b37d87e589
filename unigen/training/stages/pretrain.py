# SPDX-License-Identifier: Apache-2.0
"""Pre-training of UniGen: masked image codes, text after image codes, running text (arXiv 2505.14682, section 3.2).

Legend: N images, I codes of an image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unigen.config.schema import Config
from unigen.data.batch import Batch, Sample, count_targets, fill_codes, pack_batches
from unigen.data.draws import Draws
from unigen.data.preparation import RowPreparer, VisionPreparation
from unigen.data.sample import RawSample
from unigen.generation.unigen import image_codes
from unigen.models.cost import training_flops
from unigen.models.unigen import UniGenConfig
from unigen.models.vision import VisionTower
from unigen.objectives.cross_entropy import linear_cross_entropy
from unigen.objectives.loss_kernels import LossKernel
from unigen.sequence.templates.unigen import UnigenTemplate
from unigen.sequence.vocabulary import Vocabulary
from unigen.training.stages.row_losses import row_losses
from unigen.training.stages.unigen import UnigenStage


def row_preparer(
    config: Config,
    model: UniGenConfig,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Vocabulary,
    tower: VisionTower | None,
) -> RowPreparer:
    """What makes the rows of a run, in the loader's workers; no weight is touched."""
    training = config.training
    return RowPreparer(
        template=UnigenTemplate(tokenizer, vocabulary, model.num_image_codes, model.row_length, model.task_token_first),
        image_resolution=model.image_resolution,
        prompt_drop_prob=training.prompt_drop_prob,
        mask_schedule=training.mask_schedule,
        min_mask_ratio=training.min_mask_ratio,
        vision=None if tower is None else VisionPreparation(tower.preprocess, tower.num_tokens),
        num_crops=config.data.image_crops,
    )


class PretrainStage(UnigenStage):
    """Draws and reads through image codes."""

    def __init__(self, *parts: Any, loss_kernel: LossKernel = linear_cross_entropy) -> None:
        """`parts` as of UnigenStage."""
        super().__init__(*parts)
        self._loss_kernel = loss_kernel

    @property
    def prepare(self) -> Callable[[RawSample, Draws], Sample]:
        return row_preparer(self._config, self.model.config, self._tokenizer, self._vocabulary, self._frozen[1])

    def batches(self, samples: Sequence[Sample]) -> Iterator[Batch]:
        training = self._config.training
        return pack_batches(
            samples,
            training.tokens_per_row,
            training.rows_per_micro_batch,
            length_multiple=self._length_multiple,
        )

    def counts(self, samples: Sequence[Sample]) -> dict[str, int]:
        return count_targets(samples)

    def loss_weights(self) -> Mapping[str, float]:
        return self._config.training.loss_weights

    def empty_batch(self) -> Batch:
        return self.empty_rows()

    @torch.no_grad()
    def encode(self, batch: Batch) -> Batch:
        if not batch.code_images:
            return batch
        return fill_codes(batch, image_codes(self._frozen[0], batch.code_images), self._vocabulary)

    def forward(self, batch: Batch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        return row_losses(self.model, batch, scales, self._config.training.image_softmax, self._loss_kernel)

    def training_flops(self, batch: Batch) -> float:
        return training_flops(self.model.config.llm_config, batch.visible.documents_RL, len(batch.supervised_T))
