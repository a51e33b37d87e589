# SPDX-License-Identifier: Apache-2.0
"""Direct preference optimisation of UniGen's drawing (arXiv 2505.14682, section 3.4): chosen images over rejected ones.

Legend: N images, P pairs (chosen, rejected), T masked codes, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from peft import PeftModel
from torch import Tensor, nn

from unigen.data.batch import Batch, Sample
from unigen.data.pairs import pack_pairs
from unigen.data.preparation import PairPreparer
from unigen.models.unigen import UniGen
from unigen.objectives.preference import MaskedCodes, PreferenceTerms, image_log_probs, preference_loss
from unigen.sequence.layout import IGNORED
from unigen.training.stages.pretrain import PretrainStage, row_preparer
from unigen.training.stages.reference import ReferenceTable, adapter_off, hold_reference
from unigen.training.stages.row_losses import supervised_states
from unigen.training.stages.stage import RunStart

LOSS, CHOSEN = "preference", "chosen_images"
"""The loss of pairs, and the masked-token loss of the images that were chosen."""


class DpoStage(PretrainStage):
    """The reference is outside of the module: neither wrapped, nor sharded, nor saved. Nothing here changes along the run but
    the model."""

    def __init__(self, *parts: Any, reference: UniGen | None) -> None:
        """`parts` as of PretrainStage; `reference` for `dpo.reference` copy."""
        super().__init__(*parts)
        self._dpo = self._config.dpo
        self._reference = (reference,)  # in a tuple, so that it is no submodule
        self._table: ReferenceTable | None = None

    @property
    def prepare(self) -> PairPreparer:
        rows = row_preparer(self._config, self.model.config, self._tokenizer, self._vocabulary, tower=None)
        return PairPreparer(rows, self._dpo.pairing)

    def begin(self, run: RunStart) -> None:
        folder, wants_table = run.folder / "reference", self._dpo.reference == "precomputed"
        found: list[ReferenceTable | None] = [None]
        if run.is_main:
            hold_reference(folder, self._config)
            found[0] = ReferenceTable.read(folder, run.num_steps, self._config) if wants_table else None
        if not wants_table:
            return
        broadcast_object_list(found)
        self._table = found[0] or self._compute_table(run)
        if run.is_main and found[0] is None:
            self._table.write(folder, run.num_steps, self._config)

    def batches(self, samples: Sequence[Sample]) -> Iterator[Batch]:
        for pairs, batch in self._pair_batches(samples):
            yield batch if self._table is None else replace(batch, reference_P2=self._table.look_up(pairs))

    def _pair_batches(self, samples: Sequence[Sample]) -> Iterator[tuple[Sequence[Sample], Batch]]:
        training = self._config.training
        return pack_pairs(
            samples,
            training.tokens_per_row,
            training.rows_per_micro_batch,
            length_multiple=self._length_multiple,
        )

    def counts(self, samples: Sequence[Sample]) -> dict[str, int]:
        chosen = {CHOSEN: sum(sample.num_targets for sample in samples)} if self._dpo.sft_weight else {}
        return {LOSS: len(samples), **chosen}

    def empty_batch(self) -> Batch:
        return replace(super().empty_batch(), reference_P2=torch.zeros(0, 2))

    def loss_weights(self) -> Mapping[str, float]:
        return {CHOSEN: self._dpo.sft_weight}

    def forward(self, batch: Batch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        codes = self._masked_codes(batch)
        if self._dpo.reference == "precomputed" and batch.reference_P2 is None:
            return torch.zeros(()), {"log_probs": self._log_probs(self.model, batch, codes)}
        reference_P2 = self._reference_log_probs(batch, codes)
        total, terms = preference_loss(
            supervised_states(self.model, batch),
            self.model.output_embedding_VD,
            codes,
            batch.pairs_P2,
            reference_P2,
            beta=self._dpo.beta,
            scale=scales.get(LOSS, 0.0),
            sft_scale=scales.get(CHOSEN, 0.0),
        )
        return total, self._sums(terms)

    def training_flops(self, batch: Batch) -> float:
        """One more forward pass for a reference that runs beside the model."""
        return super().training_flops(batch) * (1 if self._dpo.reference == "precomputed" else 4 / 3)

    def _sums(self, terms: PreferenceTerms) -> dict[str, Tensor]:
        chosen = {CHOSEN: terms.chosen_loss} if self._dpo.sft_weight else {}
        return {
            LOSS: terms.losses_P.sum(),
            **chosen,
            # A tie, as all are before the first step, is not right.
            "preference/reward_accuracy": (terms.margins_P > 0).float().sum(),
            "preference/reward_margin": terms.margins_P.sum(),
            "preference/kl_estimate": terms.kl_P.sum(),
            "preference/chosen_log_prob": terms.policy_P2[:, 0].sum(),
            "preference/rejected_log_prob": terms.policy_P2[:, 1].sum(),
        }

    def _masked_codes(self, batch: Batch) -> MaskedCodes:
        images_T = (batch.code_targets_NI != IGNORED).nonzero()[:, 0]
        return MaskedCodes(
            targets_T=batch.targets_RL.flatten()[batch.supervised_T],
            images_T=images_T,
            num_images=len(batch.code_targets_NI),
            code_rows=slice(self.model.config.code_offset, self.model.config.mask_token_id),
            image_softmax=self._config.training.image_softmax,
            normalization=self._dpo.normalization,
        )

    def _log_probs(self, model: UniGen, batch: Batch, codes: MaskedCodes) -> Tensor:
        """Of each pair by `model` (P, 2), without gradient."""
        with torch.no_grad():
            states_TD = supervised_states(model, batch)
            return image_log_probs(states_TD, model.output_embedding_VD, codes)[batch.pairs_P2]

    def _reference_log_probs(self, batch: Batch, codes: MaskedCodes) -> Tensor:
        if batch.reference_P2 is not None:
            return batch.reference_P2
        (reference,) = self._reference
        if reference is not None:
            # In the very precision that the backend runs the policy in, so that equal weights give equal numbers.
            nn.Module.to(reference, self.model.output_embedding_VD.dtype)
            return self._log_probs(reference, batch, codes)
        assert isinstance(self.model, PeftModel), "the configuration's check asks for an adapter"
        with adapter_off(self.model):
            return self._log_probs(self.model, batch, codes)

    @torch.no_grad()
    def _compute_table(self, run: RunStart) -> ReferenceTable:
        """One pass over all pairs of the run by the model as it is now, all ranks together."""
        rows: dict[tuple[str, int], tuple[float, float]] = {}
        was_training = self.training
        self.eval()
        for samples in run.samples():
            batches = list(self._pair_batches(samples))
            missing = max(gather_object([len(batches)])) - len(batches)
            for pairs, batch in [*batches, *[([], self.empty_batch())] * missing]:
                _, found = run.backend.forward(self.encode(batch.to(run.backend.accelerator.device)), {})
                values = found["log_probs"].tolist() if pairs else []
                rows.update(zip(((pair.key, pair.visit) for pair in pairs), map(tuple, values), strict=True))
        self.train(was_training)
        return ReferenceTable({key: row for part in gather_object([rows]) for key, row in part.items()})
