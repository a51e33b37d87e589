# SPDX-License-Identifier: Apache-2.0
"""Learning to draw from rewards: UniGen as the policy of the stage grpo_generation, over its masked-token trajectories.

An image is drawn in few steps; each code is a term of the loss, with its probability at the step that fixed it (see
`generation.trajectories` for what counts as the policy). Defaults are those of UniGen-1.5 (arXiv 2511.14760).

Legend: K rows of each step (with prompt; without), R packed rows, L positions, D width, T codes, C codebook size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import functional as F

from unigen.config.schema import Config
from unigen.generation.maskgit import MaskGitSettings, guided
from unigen.generation.pipeline import DrawRequest
from unigen.models.cost import training_flops
from unigen.objectives.policy_gradient import token_divergence
from unigen.rewards.judged import Judged
from unigen.rewards.reward import WeightedRewards
from unigen.sequence.visibility import Visible
from unigen.training.stages.masked_rows import DrawnImage, PromptPreparer, StepRows
from unigen.training.stages.policy import LOSS, PolicyBatch, PolicyStage, Request, Rollout
from unigen.training.stages.reference import adapter_off
from unigen.training.stages.unigen import UnigenStage

KL = "kl"
"""The divergence from the reference, as a loss beside that of the policy."""


class MaskedPolicyStage(PolicyStage, UnigenStage):
    """Groups of images of one prompt."""

    def __init__(self, config: Config, rewards: WeightedRewards, *parts: Any) -> None:
        """`parts` as of UnigenStage."""
        super().__init__(config, rewards, config, *parts)
        masked = config.grpo.masked
        self._settings = MaskGitSettings(masked.steps, masked.guidance_scale, masked.temperature)

    @property
    def prepare(self) -> PromptPreparer:
        return PromptPreparer(self.pipeline.template)

    def roll_out(self, requests: Sequence[Request]) -> list[Rollout]:
        prompts = [request.sample.content.text for request in requests]
        wanted = [DrawRequest(prompt, request.seed) for prompt, request in zip(prompts, requests, strict=True)]
        drawn = self.pipeline.trajectories(wanted, self._settings, batch_size=self._grpo.masked.batch_size)
        return [
            Rollout(
                Judged(request.sample.key, image, prompt, entry=request.sample.content.entry),
                DrawnImage(prompt, trajectory),
                measured={"policy/image_log_prob": float(trajectory.log_probs_I.sum())},
            )
            for request, prompt, (image, trajectory) in zip(requests, prompts, drawn, strict=True)
        ]

    def batches(self, rollouts: Sequence[Rollout]) -> Iterator[PolicyBatch]:
        return self._rows.batches(rollouts)

    def counts(self, rollouts: Sequence[Rollout]) -> dict[str, int]:
        codes = len(rollouts) * self.model.config.num_image_codes
        return {LOSS: codes, KL: codes} if self._grpo.kl_weight else {LOSS: codes}

    def loss_weights(self) -> Mapping[str, float]:
        return {KL: self._grpo.kl_weight}

    def empty_batch(self) -> PolicyBatch:
        return self._rows.empty(self.empty_rows())

    def forward(self, batch: PolicyBatch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        tensors = batch.tensors
        reference_T = self._reference_log_probs(tensors) if self._grpo.kl_weight else None
        distributions_TC = self._distributions(tensors)
        log_probs_T = _chosen(distributions_TC, tensors)
        terms = self.policy_terms(log_probs_T, tensors["old_log_probs_T"], tensors["advantages_T"])
        total = terms[LOSS] * scales.get(LOSS, 0.0)
        if reference_T is not None:
            terms[KL] = token_divergence(log_probs_T, reference_T).sum()
            total = total + terms[KL] * scales.get(KL, 0.0)
        terms["policy/entropy"] = -(distributions_TC.exp() * distributions_TC).detach().sum()
        return total, {name: value.detach() for name, value in terms.items()}

    def training_flops(self, batch: PolicyBatch) -> float:
        """One more forward pass for the reference. The rollouts are not counted."""
        config, documents_RL, slots_KT = self.model.config, batch.tensors["documents_RL"], batch.tensors["slots_KT"]
        flops = training_flops(config.llm_config, documents_RL, slots_KT.numel(), config.codebook_size)
        return flops * (4 / 3 if self._grpo.kl_weight else 1)

    @property
    def _rows(self) -> StepRows:
        training = self._config.training
        return StepRows(
            self.pipeline.template,
            self._vocabulary,
            self._settings.has_guidance,
            training.tokens_per_row,
            training.rows_per_micro_batch,
            self._length_multiple,
        )

    def _distributions(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Log-probabilities of all codes (T, C) where codes were fixed, float32."""
        visible = Visible(tensors["documents_RL"], tensors["blocks_RL"], tensors["open_RL"])
        hidden_RLD = self.model(tensors["input_ids_RL"], tensors["positions_RL"], visible.mask())
        # Rows with their prompt first, then those without, as guidance takes them.
        states_ND = hidden_RLD.flatten(0, 1)[tensors["slots_KT"].flatten()]
        logits_TC = guided(F.linear(states_ND, self.model.code_output_embedding_CD), self._settings)
        return torch.log_softmax(logits_TC.float(), dim=-1)

    @torch.no_grad()
    def _reference_log_probs(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Of the codes (T,), by the model without its adapter."""
        assert isinstance(self.model, PeftModel), "the configuration's check asks for an adapter"
        with adapter_off(self.model):
            return _chosen(self._distributions(tensors), tensors)


def _chosen(distributions_TC: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    return distributions_TC.gather(1, tensors["codes_T"][:, None])[:, 0]
