# SPDX-License-Identifier: Apache-2.0
"""Learning to describe from rewards: UAE's language model as the policy (arXiv 2509.09666, "generation for understanding").

It writes captions of an image; the frozen projector and decoder draw each; what is drawn is scored, usually by its similarity to
the image. A token is one term of the loss. The states that a caption is drawn from are those of the policy of the moment, as
they will be when the model is used; no gradient goes through them. The paper's loss is not known: this is the token-level one
of GRPO (arXiv 2402.03300), a mean over the tokens of an update.

Legend: B rows, L positions, T tokens of captions, K image tokens, D width, V vocabulary.
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
from unigen.generation.uae import STOP, CaptionSettings
from unigen.models.uae_adapters import Side
from unigen.objectives.policy_gradient import token_divergence
from unigen.objectives.token_policy import token_log_probs
from unigen.rewards.judged import Judged
from unigen.rewards.reward import WeightedRewards
from unigen.training.stages.caption_records import (
    CaptionRecord,
    DescriptionPreparer,
    ImageToDescribe,
    WrittenCaption,
    caption_rows,
    join_prompts,
)
from unigen.training.stages.policy import LOSS, PolicyBatch, PolicyStage, PromptSample, Request, Rollout
from unigen.training.stages.reference import adapter_off
from unigen.training.stages.uae import UaeStage, UaeStart

KL = "kl"
"""The divergence from the reference, as a loss beside that of the policy."""


class CaptionPolicyStage(PolicyStage, UaeStage):
    """The stage grpo_understanding: groups of captions of one image."""

    adapted_side: ClassVar[Side] = "language_model"
    trained_parts: ClassVar[tuple[str, ...]] = ("llm.model.language_model.", "llm.lm_head.")

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
        captions = self._write(requests)
        words = self._processor.tokenizer.batch_decode(
            [one.token_ids for one in captions], skip_special_tokens=True
        )
        prompts = [one.strip() for one in words]
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
        in_order = sorted(rollouts, key=lambda one: len(one.record.written.token_ids))
        for chunk in in_batches(in_order, self._config.training.rows_per_micro_batch):
            yield self._batch(chunk)

    def counts(self, rollouts: Sequence[Rollout]) -> dict[str, int]:
        tokens = sum(len(one.record.written.token_ids) for one in rollouts)
        return {LOSS: tokens, KL: tokens} if self._grpo.kl_weight else {LOSS: tokens}

    def loss_weights(self) -> Mapping[str, float]:
        return {KL: self._grpo.kl_weight}

    def empty_batch(self) -> PolicyBatch:
        """A caption that nothing is learnt of."""
        side = self.uae.config.image_resolution
        blank = self.prepare(RawSample("", "mmu", (blank_image(side),)), Draws(0, "", 0)).content
        (caption,) = self._seen([blank], [[0]])
        tensors = self._rows([caption])
        nothing = torch.zeros(0)
        values = {name: nothing for name in ("old_log_probs_T", "advantages_T", "reference_log_probs_T")}
        shown = {name: tensors[name][:0] for name in ("places_T", "targets_T")}
        return PolicyBatch([], {**tensors, **shown, **values})

    def forward(self, batch: PolicyBatch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        tensors = batch.tensors
        log_probs_T, _ = self._token_log_probs(tensors)
        terms = self.policy_terms(log_probs_T, tensors["old_log_probs_T"], tensors["advantages_T"])
        total = terms[LOSS] * scales.get(LOSS, 0.0)
        if self._grpo.kl_weight:
            terms[KL] = token_divergence(log_probs_T, tensors["reference_log_probs_T"]).sum()
            total = total + terms[KL] * scales.get(KL, 0.0)
        return total, {name: value.detach() for name, value in terms.items()}

    def directly_read_parameters(self) -> Sequence[nn.Parameter]:
        return (self.uae.llm.lm_head.weight,)

    def _noise_seed(self, request: Request) -> int:
        """Of the drawing of a caption: by default all captions of an image start from one noise, so that their rewards differ by
        their words alone."""
        if not self._settings.same_noise:
            return request.seed
        sample = request.sample
        return image_seed(self._config.experiment.seed, f"{sample.key}|{sample.visit}|drawing", 0)

    def _write(self, requests: Sequence[Request]) -> list[WrittenCaption]:
        chosen = CaptionSettings(self._settings.max_new_tokens, self._settings.temperature)
        written: list[list[int]] = []
        for batch in in_batches(requests, self._settings.batch_size):
            prompts = join_prompts([one.sample.content.inputs for one in batch], self._padding_id)
            inputs = {name: value.to(self.uae.device) for name, value in prompts.items()}
            written += self.pipeline.write(inputs, [one.seed for one in batch], chosen)
        return self._seen([one.sample.content for one in requests], written)

    def _seen(self, images: Sequence[ImageToDescribe], written: Sequence[Sequence[int]]) -> list[WrittenCaption]:
        """Captions with what the vision tower makes of their images, each of which it sees once."""
        distinct = list({id(one): one for one in images}.values())
        features: dict[int, Tensor] = {}
        for batch in in_batches(distinct, self._settings.batch_size):
            pixels, grids = (
                torch.cat([one.inputs[name] for one in batch]).to(self.uae.device)
                for name in ("pixel_values", "image_grid_thw")
            )
            found = self.uae.image_features(pixels, grids)
            features |= {id(one): features_KD for one, features_KD in zip(batch, found, strict=True)}
        return [
            WrittenCaption(one.inputs, features[id(one)], tuple(tokens))
            for one, tokens in zip(images, written, strict=True)
        ]

    def _records(self, captions: Sequence[WrittenCaption]) -> Iterator[tuple[CaptionRecord, dict[str, float]]]:
        """Each caption with its log-probabilities, and what to watch of it.

        They are read in one go by the very code and in the precision of training: with bfloat16 those that it was written by,
        one token at a time, are apart from them by rounding.
        """
        for batch in in_batches(captions, self._config.training.rows_per_micro_batch):
            lengths = [len(one.token_ids) for one in batch]
            tensors = {name: value.to(self.uae.device) for name, value in self._rows(batch).items()}
            log_probs_T, entropies_T = self._token_log_probs(tensors)
            reference: list[Tensor | None] = [None] * len(batch)
            if self._grpo.kl_weight:
                with adapter_off(self.model):  # type: ignore[arg-type]  # the configuration's check asks for an adapter
                    reference = list(self._token_log_probs(tensors)[0].split(lengths))
            for one, own, other, entropies in zip(
                batch, log_probs_T.split(lengths), reference, entropies_T.split(lengths), strict=True
            ):
                yield CaptionRecord(one, own, other), self._measured(one, entropies)

    def _measured(self, caption: WrittenCaption, entropies_T: Tensor) -> dict[str, float]:
        return {
            "caption/tokens": float(len(caption.token_ids)),
            "caption/entropy": float(entropies_T.mean()),
            "caption/finished_fraction": float(caption.token_ids[-1] == self._stop_id),
        }

    def _rows(self, captions: Sequence[WrittenCaption]) -> dict[str, Tensor]:
        return caption_rows(captions, self._padding_id, self.uae.llm.model.get_rope_index)

    def _batch(self, rollouts: Sequence[Rollout]) -> PolicyBatch:
        records: list[CaptionRecord] = [one.record for one in rollouts]
        tensors = self._rows([one.written for one in records])
        advantages = [torch.full_like(one.record.log_probs_T, one.advantage) for one in rollouts]
        values = {
            "old_log_probs_T": torch.cat([one.log_probs_T for one in records]),
            "advantages_T": torch.cat(advantages),
        }
        if self._grpo.kl_weight:
            known = [one.reference_log_probs_T for one in records]
            values["reference_log_probs_T"] = torch.cat([one for one in known if one is not None])
        return PolicyBatch(
            [one.judged.key for one in rollouts],
            {**tensors, **values},
            num_tokens=int(tensors["is_text_BL"].sum()),
            num_slots=tensors["is_text_BL"].numel(),
            num_images=len(rollouts),
        )

    def _token_log_probs(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of all written tokens (T) under the temperature that they are drawn with, and the entropies of what they were drawn of."""
        states_BLD = self.uae.states_with_features(
            tensors["ids_BL"],
            tensors["is_text_BL"],
            tensors["is_image_BL"],
            tensors["features_KD"],
            tensors["positions_B3L"],
        )
        states_TD = states_BLD.flatten(0, 1)[tensors["places_T"]]
        head_VD = self.uae.llm.lm_head.weight[: len(self._processor.tokenizer)]  # of all that the chooser may write
        return token_log_probs(states_TD, head_VD, tensors["targets_T"], self._settings.temperature)

    @property
    def _padding_id(self) -> int:
        return int(self._processor.tokenizer.pad_token_id)

    @property
    def _stop_id(self) -> int:
        return int(self._processor.tokenizer.convert_tokens_to_ids(STOP))
