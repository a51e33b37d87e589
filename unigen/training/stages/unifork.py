# SPDX-License-Identifier: Apache-2.0
"""Training of UniFork: next positions of images through the generation branch, next tokens through the other (arXiv 2506.17202).

Legend: R rows, L positions of a row, N images, I positions of an image, P depths, M predicted positions, T supervised tokens,
C channels of a feature.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from unigen.config.folders import portable_path
from unigen.config.schema import TASKS, Config
from unigen.data.batch import Batch, Sample, collate, count_targets
from unigen.data.draws import Draws
from unigen.data.preparation import RowPreparer
from unigen.data.sample import RawSample
from unigen.generation.unifork import unifork_template
from unigen.generation.unigen import image_codes
from unigen.models.cost import LanguageModelCost
from unigen.models.image_tokenizers.rqvae_siglip import RqVaeSiglip
from unigen.models.unifork import UniFork
from unigen.models.unifork_checkpoints import load_unifork, save_unifork
from unigen.models.unifork_config import UniForkConfig
from unigen.objectives.cross_entropy import linear_cross_entropy
from unigen.objectives.depth_prediction import depth_prediction_loss
from unigen.objectives.loss_kernels import LossKernel
from unigen.sequence.layout import IGNORED, Document, text
from unigen.sequence.packing import pack
from unigen.sequence.visibility import BLOCK_LENGTH
from unigen.training.stages.stage import Stage

DRAWING = TASKS.index("t2i")


def unifork_preparer(config: Config, model: UniForkConfig, tokenizer: PreTrainedTokenizerBase) -> RowPreparer:
    """What makes the rows of a run, in the loader's workers; no weight is touched."""
    return RowPreparer(
        template=unifork_template(model, tokenizer),
        image_resolution=model.image_resolution,
        prompt_drop_prob=config.training.prompt_drop_prob,
        reads_padded=True,
        num_crops=config.data.image_crops,
    )


class UniForkStage(Stage):
    """Every row holds samples of one task alone, so that a row goes through one branch."""

    model: UniFork

    def __init__(
        self,
        config: Config,
        model: UniFork,
        tokenizer: PreTrainedTokenizerBase,
        image_tokenizer: RqVaeSiglip,
        image_tokenizer_folder: Path,
        kernel: LossKernel = linear_cross_entropy,
    ) -> None:
        super().__init__()
        self.model = model
        self._config = config
        self._tokenizer = tokenizer
        self._frozen = (image_tokenizer,)  # in a tuple, so that it is no submodule
        self._image_tokenizer_folder = image_tokenizer_folder
        self._kernel = kernel

    @property
    def prepare(self) -> Callable[[RawSample, Draws], Sample]:
        return unifork_preparer(self._config, self.model.config, self._tokenizer)

    def batches(self, samples: Sequence[Sample]) -> Iterator[Batch]:
        training = self._config.training
        rows: list[list[Sample]] = []
        for drawing in (True, False):
            group = [sample for sample in samples if (sample.document.task == DRAWING) == drawing]
            packed = pack([sample.document.length for sample in group], training.tokens_per_row)
            rows += [[group[index] for index in row] for row in packed]
        for start in range(0, len(rows), training.rows_per_micro_batch):
            chunk = rows[start : start + training.rows_per_micro_batch]
            yield collate(chunk, self._length(chunk))

    def _length(self, rows: Sequence[Sequence[Sample]]) -> int | None:
        """On CUDA attention goes in blocks, so rows are whole ones; elsewhere they are as long as they need to be."""
        if not self.model.model.embed_tokens.weight.is_cuda:
            return None
        longest = max(sum(sample.document.length for sample in row) for row in rows)
        return math.ceil(longest / BLOCK_LENGTH) * BLOCK_LENGTH

    def counts(self, samples: Sequence[Sample]) -> dict[str, int]:
        counts = count_targets(samples)
        return counts | {task: count * self._frozen[0].depth for task, count in counts.items() if task == "t2i"}

    def loss_weights(self) -> Mapping[str, float]:
        return self._config.training.loss_weights

    def empty_batch(self) -> Batch:
        task = DRAWING if not self.model.config.has("understanding") else TASKS.index("lm")
        rows = [[Sample("", Document(task, (text([0]),)))]]
        return collate(rows, self._length(rows))

    @torch.no_grad()
    def encode(self, batch: Batch) -> Batch:
        """Images of both tasks become codes, and their features take the places of the codes in the rows."""
        (tokenizer,) = self._frozen
        if not batch.code_images:
            nothing = torch.empty(0, tokenizer.feature_size, device=batch.input_ids_RL.device)
            return replace(batch, features_KF=nothing, codes_NIP=None)
        codes_NIP = image_codes(tokenizer, batch.code_images)
        features_KC, slots_K = tokenizer.lookup(codes_NIP).flatten(0, 1), batch.code_slots_NI.flatten()
        return replace(batch, codes_NIP=codes_NIP, features_KF=features_KC, feature_slots_K=slots_K)

    def forward(self, batch: Batch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        hidden_RLD = self.model(
            batch.input_ids_RL,
            batch.positions_RL,
            batch.visible,
            batch.tasks_RL[:, 0] == DRAWING,
            batch.features_KF,
            batch.feature_slots_K,
        )
        hidden_ND = hidden_RLD.flatten(0, 1)
        total = torch.zeros((), device=hidden_ND.device)
        sums: dict[str, Tensor] = {}
        if self.model.config.has("understanding"):
            total, sums = self._word_loss(batch, hidden_ND, scales)
        if self.model.config.has("generation"):
            drawing, sums["t2i"] = self._code_loss(batch, hidden_ND, scales.get("t2i", 0.0))
            total = total + drawing
        return total, {task: sums[task] for task in scales}

    def _word_loss(
        self, batch: Batch, hidden_ND: Tensor, scales: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        supervised_T = (batch.targets_RL.flatten() != IGNORED).nonzero()[:, 0]
        tasks_T = batch.tasks_RL.flatten()[supervised_T]
        scale_of_task = torch.tensor([scales.get(task, 0.0) for task in TASKS], device=hidden_ND.device)
        total, losses_T = self._kernel(
            hidden_ND[supervised_T],
            self.model.output_embedding_VD,
            batch.targets_RL.flatten()[supervised_T],
            scale_of_task[tasks_T],
        )
        sums = torch.zeros(len(TASKS), device=losses_T.device).index_add(0, tasks_T, losses_T)
        return total, {task: sums[index] for index, task in enumerate(TASKS)}

    def _code_loss(self, batch: Batch, hidden_ND: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        (tokenizer,), head = self._frozen, self.model.depth_transformer
        predictors_M = batch.code_targets_NI[batch.code_targets_NI != IGNORED]
        codes_MP = predictors_M.new_empty(0, tokenizer.depth)
        if batch.codes_NIP is not None:
            codes_MP = batch.codes_NIP[batch.code_targets_NI != IGNORED]
        embeddings_MPC = tokenizer.depth_embeddings(codes_MP).to(hidden_ND.dtype)
        states_MPW = head.states(hidden_ND[predictors_M], embeddings_MPC)
        return depth_prediction_loss(
            states_MPW, head.output_embedding_KW, head.output_bias_K, codes_MP, scale, self._kernel
        )

    def directly_read_parameters(self) -> Sequence[nn.Parameter]:
        read: list[Tensor] = []
        if self.model.config.has("understanding"):
            read.append(self.model.output_embedding_VD)
        if self.model.config.has("generation"):
            head = self.model.depth_transformer
            read += [head.pos_emb_d, head.output_embedding_KW, head.output_bias_K]
        return [parameter for parameter in read if isinstance(parameter, nn.Parameter)]

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        root = self._config.data.root
        self.model.config.image_tokenizer = portable_path(self._image_tokenizer_folder, folder, root)
        save_unifork(self.model, self._tokenizer, folder, state)

    def load(self, folder: Path) -> None:
        self.model.load_state_dict(load_unifork(folder, self._config.data.root).state_dict())

    def training_flops(self, batch: Batch) -> float:
        """Three forwards through each row's own path; logits of words and the depth transformer's products included."""
        total, config = 0.0, self.model.config
        is_drawing_R = (batch.tasks_RL[:, 0] == DRAWING).cpu()
        for branch in config.branches:
            documents_RL = batch.visible.documents_RL.cpu()[is_drawing_R == (branch == "generation")]
            counts = torch.cat([row[row >= 0].bincount() for row in documents_RL] or [torch.zeros(0)]).double()
            logits = (
                config.llm_config.vocab_size * int((batch.targets_RL != IGNORED).sum()) * (branch == "understanding")
            )
            cost = LanguageModelCost(config.path_config(branch))
            total += cost.forward_flops(float(counts.square().sum()), float(counts.sum()), logits)
        if config.has("generation"):
            slots = int((batch.code_targets_NI != IGNORED).sum()) * config.depth_sizes.depth
            total += 2.0 * slots * sum(p.numel() for p in self.model.depth_transformer.parameters() if p.ndim == 2)
        return 3 * total
