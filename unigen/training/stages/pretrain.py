# SPDX-License-Identifier: Apache-2.0
"""Pre-training of UniGen: masked image codes, text after image codes, running text (arXiv 2505.14682, section 3.2).

Legend: N images, I codes of an image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from unigen.config.folders import portable_path
from unigen.config.schema import Config
from unigen.data.batch import Batch, Sample, collate, count_targets, fill_codes, pack_batches
from unigen.data.draws import Draws
from unigen.data.preparation import RowPreparer, VisionPreparation
from unigen.data.sample import RawSample
from unigen.generation.unigen import UnigenPipeline, image_codes
from unigen.models.adapters import AdapterBase, load_adapter_weights, save_adapter
from unigen.models.checkpoints import load_unigen, save_unigen
from unigen.models.cost import training_flops
from unigen.models.image_tokenizers.registry import ImageTokenizer
from unigen.models.unigen import UniGen, UniGenConfig
from unigen.models.vision import VisionTower
from unigen.objectives.cross_entropy import linear_cross_entropy
from unigen.objectives.loss_kernels import LossKernel
from unigen.sequence.layout import Document, text
from unigen.sequence.templates.unigen import UnigenTemplate
from unigen.sequence.visibility import BLOCK_LENGTH
from unigen.sequence.vocabulary import Vocabulary
from unigen.training.stages.row_losses import row_losses
from unigen.training.stages.stage import Stage


@dataclass(frozen=True)
class Origins:
    """Where the parts of a model came from, for its checkpoints to name."""

    image_tokenizer: Path
    vision_tower: Path | None = None
    adapter_base: AdapterBase | None = None
    """What a low-rank adapter changes; None where all weights are trained."""


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


class PretrainStage(Stage):
    """Draws and reads through image codes."""

    model: UniGen

    def __init__(
        self,
        config: Config,
        model: UniGen,
        tokenizer: PreTrainedTokenizerBase,
        image_tokenizer: ImageTokenizer,
        vision_tower: VisionTower | None,
        origins: Origins,
        loss_kernel: LossKernel = linear_cross_entropy,
    ) -> None:
        """`model` may be wrapped in a PeftModel, which passes everything through."""
        super().__init__()
        self.model = model
        self._origins = origins
        self._loss_kernel = loss_kernel
        self._config = config
        self._tokenizer = tokenizer
        self._frozen = (image_tokenizer, vision_tower)  # in a tuple, so that they are no submodules
        self._vocabulary = Vocabulary.from_tokenizer(tokenizer, image_tokenizer.codebook_size)

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
        return collate([[Sample("", Document(0, (text([self._vocabulary.pad_id]),)))]], self._length_multiple)

    @property
    def _length_multiple(self) -> int | None:
        """On CUDA attention goes in blocks, and rows of whole blocks leave none half empty."""
        return BLOCK_LENGTH if self.model.output_embedding_VD.is_cuda else None

    @torch.no_grad()
    def encode(self, batch: Batch) -> Batch:
        if not batch.code_images:
            return batch
        return fill_codes(batch, image_codes(self._frozen[0], batch.code_images), self._vocabulary)

    def forward(self, batch: Batch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        return row_losses(self.model, batch, scales, self._config.training.image_softmax, self._loss_kernel)

    def directly_read_parameters(self) -> Sequence[nn.Parameter]:
        return (self.model.llm.lm_head.weight,)  # by the loss

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        root, origins, described = self._config.data.root, self._origins, self.model.config
        described.image_tokenizer = portable_path(origins.image_tokenizer, folder, root)
        if origins.vision_tower is not None:
            described.vision_tower = portable_path(origins.vision_tower, folder, root)
        if isinstance(self.model, PeftModel):
            assert origins.adapter_base is not None, "an adapter changes a model that was loaded"
            save_adapter(self.model, self._tokenizer, folder, origins.adapter_base, root, state)
        else:
            save_unigen(self.model, self._tokenizer, folder, state)

    def load(self, folder: Path) -> None:
        if isinstance(self.model, PeftModel):
            load_adapter_weights(self.model, folder)
            return
        loaded = load_unigen(folder, self._config.data.root)
        self.model.load_state_dict(loaded.state_dict())

    def draw_validation(self, prompts: Sequence[str], **settings: Any) -> Iterator[Any]:
        pipeline = UnigenPipeline(self.model, self._tokenizer, self._vocabulary, self._frozen[0], self._frozen[1])
        yield from pipeline.draw(prompts, seed=self._config.experiment.seed, **settings)

    def training_flops(self, batch: Batch) -> float:
        return training_flops(self.model.config.llm_config, batch.visible.documents_RL, len(batch.supervised_T))
