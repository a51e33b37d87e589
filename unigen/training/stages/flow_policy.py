# SPDX-License-Identifier: Apache-2.0
"""Learning to draw from rewards: UAE's decoder as the policy (Flow-GRPO, arXiv 2505.05470; the third stage of arXiv 2509.09666).

The way from noise to an image has noisy steps, each a normal distribution that the decoder's velocity decides. An image is drawn
in few steps; each noisy one is a term of the loss. The language model is frozen: what it makes of a prompt is computed once, for
drawing and for learning. Drawing and learning take as many images through the decoder at once, so that rounding moves no ratio.

Legend: B terms of a batch, S steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from accelerate.utils import gather_object
from peft import PeftModel
from torch import Tensor

from unigen.config.schema import Config
from unigen.data.draws import Draws
from unigen.generation import flow
from unigen.generation.pipeline import in_batches
from unigen.generation.uae import StatesOfPrompts
from unigen.models.text_states import PromptStates
from unigen.models.uae_adapters import Side
from unigen.models.uae_cost import decoder_forward_flops, num_image_tokens
from unigen.objectives.flow_matching import Transition, sampling_sigmas
from unigen.objectives.policy_gradient import transition_divergence
from unigen.rewards.judged import Judged
from unigen.rewards.reward import WeightedRewards
from unigen.training.stages.flow_terms import Guiding, batch_of, empty_terms, records_of, texts_of
from unigen.training.stages.policy import LOSS, PolicyBatch, PolicyStage, PromptSample, Request, Rollout
from unigen.training.stages.reference import adapter_off
from unigen.training.stages.stage import Update
from unigen.training.stages.uae import UaeStage, UaeStart
from unigen.training.stages.wanted_images import WantedImagePreparer, prompts_of

KL = "kl"
"""The divergence from the reference, as a loss beside that of the policy."""


class FlowPolicyStage(PolicyStage, UaeStage):
    """The stage grpo_generation of UAE: groups of images of one prompt, or of one image that is to be drawn again."""

    adapted_side: ClassVar[Side] = "decoder"
    trained_parts: ClassVar[tuple[str, ...]] = ("decoder.",)
    can_round_frozen: ClassVar[bool] = True
    _window: tuple[int, int]
    """First noisy step of the global step's drawings, and the one after the last."""

    def __init__(self, config: Config, rewards: WeightedRewards, start: UaeStart, device: torch.device) -> None:
        super().__init__(config, rewards, config, start, device)

    @property
    def prepare(self) -> WantedImagePreparer:
        wanted, prompts = self._config.model, self._grpo.flow.prompts
        return WantedImagePreparer(self.template, wanted.image_resolution, wanted.max_text_tokens, prompts)

    def updates(self, samples: Sequence[PromptSample]) -> Sequence[Update]:
        self._window = self._draw_window(samples)
        return super().updates(samples)

    def roll_out(self, requests: Sequence[Request]) -> list[Rollout]:
        samples = {(one.sample.key, one.sample.visit): one.sample for one in requests}
        found = prompts_of(self.pipeline, samples.values(), self._config.experiment.seed, self._grpo.caption)
        words, states = dict(zip(samples, found, strict=True)), StatesOfPrompts(self.pipeline)
        asked = ((one, words[one.sample.key, one.sample.visit]) for one in requests)
        return [rollout for batch in in_batches(asked, self._rows) for rollout in self._drawn(batch, states)]

    def batches(self, rollouts: Sequence[Rollout]) -> Iterator[PolicyBatch]:
        image_tokens = num_image_tokens(self.uae.config)
        for some in in_batches(rollouts, self._rows):
            for place in range(len(some[0].record.steps)):
                yield batch_of(some, place, self._guiding, image_tokens)

    def counts(self, rollouts: Sequence[Rollout]) -> dict[str, int]:
        terms = sum(len(rollout.record.steps) for rollout in rollouts)
        return {LOSS: terms, **({KL: terms} if self._grpo.kl_weight else {})}

    def loss_weights(self) -> Mapping[str, float]:
        return {KL: self._grpo.kl_weight}

    def empty_batch(self) -> PolicyBatch:
        return empty_terms(self.pipeline.latent_shape(), self.uae.decoder.config.joint_attention_dim)

    def forward(self, batch: PolicyBatch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        tensors, found = batch.tensors, self._transition(batch)
        log_probs_B = found.log_prob(tensors["next_BChw"])
        terms = self.policy_terms(log_probs_B, tensors["old_log_probs_B"], tensors["advantages_B"])
        total = terms[LOSS] * scales.get(LOSS, 0.0)
        if self._grpo.kl_weight:
            terms[KL] = self._divergence(batch, found).sum()
            total = total + terms[KL] * scales.get(KL, 0.0)
        return total, {name: value.detach() for name, value in terms.items()}

    def training_flops(self, batch: PolicyBatch) -> float:
        rows, width = batch.tensors["text_BTE"].shape[:2]
        return (4 if self._grpo.kl_weight else 3) * rows * decoder_forward_flops(self.uae.config, width)

    @property
    def _rows(self) -> int:
        return self._config.training.rows_per_micro_batch

    @property
    def _guiding(self) -> Guiding:
        return Guiding(self._grpo.flow.guidance_scale, self.uae.config.decoder_text_mask)

    @property
    def _sigmas_S(self) -> Tensor:
        return sampling_sigmas(self._grpo.flow.steps, self.uae.config.shift)

    def _settings(self, window: tuple[int, int] | None = None) -> flow.RolloutSettings:
        chosen = self._grpo.flow
        return flow.RolloutSettings(chosen.steps, chosen.kind, chosen.noise_level, window)

    def _draw_window(self, samples: Sequence[PromptSample]) -> tuple[int, int]:
        """By the first of the step's samples over all ranks, so that they all have the same."""
        chosen = self._grpo.flow
        size = chosen.trained_steps or chosen.steps - 1
        latest = 0 if chosen.window == "start" else max(0, chosen.steps // 2 - size)
        if not latest:
            return 0, size
        key, visit = min(gather_object([(sample.key, sample.visit) for sample in samples]))
        start = int(Draws(self._config.experiment.seed, key, visit).generator("window").integers(latest + 1))
        return start, start + size

    def _drawn(self, batch: Sequence[tuple[Request, str]], states: StatesOfPrompts) -> list[Rollout]:
        pipeline, prompts = self.pipeline, states.find([words for _, words in batch])
        nulls: Sequence[PromptStates | None] = [None] * len(batch)
        if flow.is_guided(self._guiding.scale):
            nulls = pipeline.nulls_of(prompts, states, flow.FlowSettings())
        noise = flow.LatentNoise([one.seed for one, _ in batch], pipeline.latent_shape(), self.uae.device)
        guidance = self._guiding.of(prompts, nulls)
        drawn = flow.roll_out(self.uae, guidance, noise, self._sigmas_S, self._settings(self._window))
        made = zip(batch, pipeline.images_of(drawn.latents_BChw), records_of(drawn, prompts, nulls), strict=True)
        rollouts = []
        for (request, words), image, record in made:
            content = request.sample.content
            judged = Judged(request.sample.key, image, words, content.original, content.entry)
            rollouts.append(Rollout(judged, record, measured={"prompt/tokens": float(record.prompt.length)}))
        return rollouts

    def _transition(self, batch: PolicyBatch) -> Transition:
        """What the decoder of now would make of each sample."""
        guidance, samples_BChw = flow.Guidance(texts_of(batch), self._guiding.scale), batch.tensors["samples_BChw"]
        numbers_B = batch.tensors["numbers_B"]
        return flow.transition(self.uae, guidance, samples_BChw, numbers_B, self._sigmas_S, self._settings())

    def _divergence(self, batch: PolicyBatch, found: Transition) -> Tensor:
        """From the decoder without its adapter (B)."""
        assert isinstance(self.model, PeftModel), "the configuration's check asks for an adapter"
        with torch.no_grad(), adapter_off(self.model):
            reference = self._transition(batch)
        numbers_B = batch.tensors["numbers_B"]
        times_S = self._sigmas_S.to(numbers_B.device)
        lengths_B = times_S[numbers_B] - times_S[numbers_B + 1]
        return transition_divergence(found.mean, reference.mean, found.std, lengths_B, self._grpo.kl_form)
