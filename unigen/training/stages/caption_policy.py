# SPDX-License-Identifier: Apache-2.0
"""Learning to describe from rewards: UAE's language model as the policy (arXiv 2509.09666, "generation for understanding").

It writes captions of an image; the frozen projector and decoder draw each; what is drawn is scored, usually by its similarity to
the image. A token is one term of the loss. The states that a caption is drawn from are those of the policy of the moment, as
they will be when the model is used; no gradient goes through them. The paper's loss is not known: this is the token-level one
of GRPO (arXiv 2402.03300), a mean over the tokens of an update.

Legend: B rows, T tokens of captions.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from unigen.config.schema import Config
from unigen.data.draws import Draws
from unigen.data.preparation import blank_image
from unigen.data.sample import RawSample
from unigen.generation.pipeline import DrawRequest, in_batches
from unigen.generation.seeds import image_seed
from unigen.models.uae_adapters import Side
from unigen.objectives.policy_gradient import token_divergence
from unigen.rewards.judged import Judged
from unigen.rewards.reward import WeightedRewards
from unigen.training.stages.caption_records import CaptionRecord, DescriptionPreparer, WrittenCaption
from unigen.training.stages.caption_writing import CaptionWriter
from unigen.training.stages.policy import LOSS, PolicyBatch, PolicyStage, Request, Rollout
from unigen.training.stages.reference import adapter_off
from unigen.training.stages.uae import UaeStage, UaeStart

KL = "kl"
"""The divergence from the reference, as a loss beside that of the policy."""


class CaptionPolicyStage(PolicyStage, UaeStage):
    """The stage grpo_understanding: groups of captions of one image."""

    adapted_side: ClassVar[Side] = "language_model"
    trained_parts: ClassVar[tuple[str, ...]] = ("llm.model.language_model.", "llm.lm_head.")
    can_round_frozen: ClassVar[bool] = True

    def __init__(self, config: Config, rewards: WeightedRewards, start: UaeStart, device: torch.device) -> None:
        super().__init__(config, rewards, config, start, device)
        self._settings = config.grpo.caption

    @property
    def prepare(self) -> DescriptionPreparer:
        described = self.uae.config
        return DescriptionPreparer(
            self.template, self._processor, described.caption_request, described.image_resolution
        )

    def roll_out(self, requests: Sequence[Request]) -> list[Rollout]:
        writer = self._writer
        captions = writer.write([one.sample.content for one in requests], [one.seed for one in requests])
        prompts = writer.words(captions)
        drawn = self.pipeline.draw_requests(
            [DrawRequest(prompt, self._noise_seed(one)) for prompt, one in zip(prompts, requests, strict=True)],
            batch_size=self._settings.batch_size,
            steps=self._settings.draw_steps,
            guidance_scale=self._settings.guidance_scale,
        )
        judged = [
            Judged(one.sample.key, image, prompt, one.sample.content.image)
            for one, prompt, image in zip(requests, prompts, drawn, strict=True)
        ]
        return [
            Rollout(shown, record, measured=measured)
            for shown, (record, measured) in zip(judged, self._records(captions), strict=True)
        ]

    def batches(self, rollouts: Sequence[Rollout]) -> Iterator[PolicyBatch]:
        """Captions that are about as long go together."""
        in_order = sorted(rollouts, key=_num_tokens)
        for chunk in in_batches(in_order, self._config.training.rows_per_micro_batch):
            yield self._batch(chunk)

    def counts(self, rollouts: Sequence[Rollout]) -> dict[str, int]:
        tokens = sum(map(_num_tokens, rollouts))
        return {LOSS: tokens, KL: tokens} if self._grpo.kl_weight else {LOSS: tokens}

    def loss_weights(self) -> Mapping[str, float]:
        return {KL: self._grpo.kl_weight}

    def empty_batch(self) -> PolicyBatch:
        """A caption that nothing is learnt of."""
        blank = RawSample("", "mmu", (blank_image(self.uae.config.image_resolution),))
        rows = self._writer.rows(self._writer.see([self.prepare(blank, Draws(0, "", 0)).content], [[0]]))
        nothing = torch.zeros(0, device=self.uae.device)
        values = dict.fromkeys(("old_log_probs_T", "advantages_T", "reference_log_probs_T"), nothing)
        return PolicyBatch([], {**rows, **{name: rows[name][:0] for name in ("places_T", "targets_T")}, **values})

    def forward(self, batch: PolicyBatch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        tensors = batch.tensors
        log_probs_T, _ = self._writer.token_log_probs(tensors)
        terms = self.policy_terms(log_probs_T, tensors["old_log_probs_T"], tensors["advantages_T"])
        total = terms[LOSS] * scales.get(LOSS, 0.0)
        if self._grpo.kl_weight:
            terms[KL] = token_divergence(log_probs_T, tensors["reference_log_probs_T"]).sum()
            total = total + terms[KL] * scales.get(KL, 0.0)
        return total, {name: value.detach() for name, value in terms.items()}

    def directly_read_parameters(self) -> Sequence[nn.Parameter]:
        return (self.uae.llm.lm_head.weight,)

    @property
    def _writer(self) -> CaptionWriter:
        return CaptionWriter(self.pipeline, self._settings)

    def _noise_seed(self, request: Request) -> int:
        """What the drawing of a caption starts from."""
        if not self._settings.same_noise:
            return request.seed
        sample = request.sample
        return image_seed(self._config.experiment.seed, f"{sample.key}|{sample.visit}|drawing", 0)

    def _records(self, captions: Sequence[WrittenCaption]) -> Iterator[tuple[CaptionRecord, dict[str, float]]]:
        """Each caption with its log-probabilities, and what to watch of it.

        They are read in one go by the very code and in the precision of training: with bfloat16 those that it was written by,
        one token at a time, are apart from them by rounding.
        """
        writer = self._writer
        for batch in in_batches(captions, self._config.training.rows_per_micro_batch):
            lengths = [len(one.token_ids) for one in batch]
            rows = {name: value.to(self.uae.device) for name, value in writer.rows(batch).items()}
            log_probs_T, entropies_T = writer.token_log_probs(rows)
            reference: list[Tensor | None] = [None] * len(batch)
            if self._grpo.kl_weight:
                with adapter_off(self.model):  # type: ignore[arg-type]  # the configuration's check asks for an adapter
                    reference = list(writer.token_log_probs(rows)[0].split(lengths))
            for one, own, other, entropies in zip(
                batch, log_probs_T.split(lengths), reference, entropies_T.split(lengths), strict=True
            ):
                measured = {
                    "caption/length": float(len(one.token_ids)),
                    "caption/entropy": float(entropies.mean()),
                    "caption/finished_fraction": float(writer.is_finished(one)),
                }
                yield CaptionRecord(one, own, other), measured

    def _batch(self, rollouts: Sequence[Rollout]) -> PolicyBatch:
        records: list[CaptionRecord] = [one.record for one in rollouts]
        rows = self._writer.rows([one.written for one in records])
        values = {
            "old_log_probs_T": torch.cat([one.log_probs_T for one in records]),
            "advantages_T": torch.cat([torch.full_like(one.record.log_probs_T, one.advantage) for one in rollouts]),
        }
        if self._grpo.kl_weight:
            known = [one.reference_log_probs_T for one in records]
            values["reference_log_probs_T"] = torch.cat([one for one in known if one is not None])
        return PolicyBatch(
            [one.judged.key for one in rollouts],
            {**rows, **values},
            num_tokens=int(rows["is_text_BL"].sum()),
            num_slots=rows["is_text_BL"].numel(),
            num_images=len(rollouts),
        )


def _num_tokens(rollout: Rollout) -> int:
    return len(rollout.record.written.token_ids)
