# SPDX-License-Identifier: Apache-2.0
"""Training on packed rows with logits where they are needed, against rows padded to one length with logits everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from unigen.bench.figures import Figure, Setting
from unigen.bench.mixes import FEATURE_SIZE, PT2, SFT, Mix, Texts, features_of
from unigen.bench.models import (
    FULL_CODEBOOK,
    FULL_VOCABULARY,
    made_up_vocabulary,
    miniature_config,
    proportional_sizes,
    random_model,
)
from unigen.bench.pairs import Expected, Pair
from unigen.data.batch import Batch, Sample, fill_codes, pack_batches
from unigen.models.cost import LanguageModelCost
from unigen.models.unigen import UniGen
from unigen.reference.losses import padded_loss_sums
from unigen.sequence.visibility import BLOCK_LENGTH
from unigen.sequence.vocabulary import Vocabulary
from unigen.training.stages.row_losses import row_losses

TOKENS_PER_ROW = 4096
"""As in configs/unigen_1_5b."""
USEFUL_FLOOR = 0.95
LOSS_TOLERANCE = 1e-5
NUM_GPUS = 8
_KERNEL_EXTRA = 0.5
"""Backward, SDPA computes the scores again: five products where a plain backward has four, counted in forwards' two."""


@dataclass(frozen=True)
class _Job:
    """One mix on one model."""

    mix: Mix
    model: UniGen
    vocabulary: Vocabulary
    samples: Sequence[Sample]

    def packed(self) -> dict[str, float]:
        """One training pass as the stages do it."""
        sums = dict.fromkeys(self.mix.counts, 0.0)
        for batch in pack_batches(self.samples, TOKENS_PER_ROW, rows_per_batch=1):
            total, parts = row_losses(self.model, self._filled(batch), dict.fromkeys(self.mix.counts, 1.0))
            total.backward()
            sums = {task: sums[task] + float(value) for task, value in parts.items()}
        self.model.zero_grad()
        return sums

    def padded(self) -> dict[str, float]:
        """The same pass as released."""
        features_KF = features_of([image for sample in self.samples for image in sample.feature_images])
        sums = padded_loss_sums(self.model, self.vocabulary, self.samples, self.mix.row_length, features_KF)
        torch.stack(list(sums.values())).sum().backward()
        self.model.zero_grad()
        return {task: float(value.detach()) for task, value in sums.items()}

    def _filled(self, batch: Batch) -> Batch:
        if batch.code_images:
            batch = fill_codes(batch, torch.stack(batch.code_images), self.vocabulary)
        return replace(batch, features_KF=features_of(batch.feature_images))


def measure(setting: Setting) -> Iterator[Figure]:
    """One GPU's share of a step of PT2 and of SFT, forward and backward: a miniature of 1.5B, vocabulary in proportion."""
    for mix, flop_floor in ((PT2, 1.5), (SFT, 2.5)):
        yield from _measure_mix(_small(mix) if setting.is_quick else mix, flop_floor, setting)
        yield from _useful_tokens(mix, setting.seed)


def _small(mix: Mix) -> Mix:
    """The same proportions at a quarter of the lengths."""
    texts = {name: Texts(one.median / 4, one.spread, one.most // 4 - 16) for name, one in mix.texts.items()}
    return replace(
        mix,
        row_length=mix.row_length // 4,
        texts=texts,
        num_features=mix.num_features // 4,
        num_codes=mix.num_codes // 4,
    )


def _measure_mix(mix: Mix, flop_floor: float, setting: Setting) -> Iterator[Figure]:
    vocab_size, codebook_size = proportional_sizes(miniature_config(FULL_VOCABULARY, is_quick=setting.is_quick))
    config = miniature_config(vocab_size, is_quick=setting.is_quick)
    feature_size = FEATURE_SIZE if mix.num_features else 0
    model, vocabulary = random_model(config, codebook_size, seed=setting.seed, feature_size=feature_size)
    job = _Job(mix, model.train(), vocabulary, mix.samples(vocabulary, setting.seed))
    pair = Pair(
        f"packing/{mix.name}",
        fast=job.packed,
        twin=job.padded,
        difference=_relative_difference,
        expected=_expected(job, LanguageModelCost(config)),
    )
    yield from pair.figures(
        setting, flop_floor=flop_floor, time_floor=None, tolerance=LOSS_TOLERANCE, note="relative difference of losses"
    )


def _relative_difference(fast: dict[str, float], twin: dict[str, float]) -> float:
    assert fast.keys() == twin.keys()
    return max(abs(fast[task] / twin[task] - 1) for task in twin)


def _expected(job: _Job, cost: LanguageModelCost) -> Expected:
    lengths = [sample.document.length for sample in job.samples]
    targets = sum(sample.num_targets for sample in job.samples)
    length, rows, vocabulary = job.mix.row_length, len(lengths), cost.config.vocab_size
    packed = _training_pass(cost, sum(one**2 for one in lengths), sum(lengths), targets * vocabulary)
    padded = _training_pass(cost, rows * length**2, rows * length, rows * length * vocabulary)
    projector = _projector_flops(job)
    return Expected(packed + projector, padded + projector)


def _training_pass(cost: LanguageModelCost, attended: float, tokens: float, logits: float) -> float:
    return 3 * cost.forward_flops(attended, tokens, logits) + _KERNEL_EXTRA * cost.forward_flops(attended, 0, 0)


def _projector_flops(job: _Job) -> float:
    """Forward, and backward without a gradient of the features."""
    num_features = job.mix.num_features * job.mix.counts["mmu"]
    width = job.model.config.llm_config.hidden_size
    return 2.0 * num_features * (2 * FEATURE_SIZE * width + 3 * width**2)


def _useful_tokens(mix: Mix, seed: int) -> Iterator[Figure]:
    """How full rows are that are packed as training packs them on CUDA, in whole blocks of attention."""
    step = mix.samples(made_up_vocabulary(FULL_VOCABULARY, FULL_CODEBOOK), seed, NUM_GPUS)
    dealt = [step[gpu::NUM_GPUS] for gpu in range(NUM_GPUS)]
    for name, shares, where in (
        ("useful_tokens", [step], "on one GPU"),
        ("useful_tokens_dealt_out", dealt, f"dealt out to {NUM_GPUS} GPUs"),
    ):
        note = f"a step of {len(step)} samples {where}, rows in blocks of {BLOCK_LENGTH}"
        yield Figure(f"packing/{mix.name}/{name}", _useful_share(shares), at_least=USEFUL_FLOOR, note=note)


def _useful_share(shares: Sequence[Sequence[Sample]]) -> float:
    batches = [
        batch
        for samples in shares
        for batch in pack_batches(samples, TOKENS_PER_ROW, rows_per_batch=4, length_multiple=BLOCK_LENGTH)
    ]
    return sum(batch.num_tokens for batch in batches) / sum(batch.input_ids_RL.numel() for batch in batches)
