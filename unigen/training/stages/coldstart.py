# SPDX-License-Identifier: Apache-2.0
"""UAE's cold start: an image is drawn from its caption in a few steps, and its features are pulled to those of the image itself.

The gradient goes through the features, the image auto-encoder and all steps of the drawing into the decoder, the projector and
the language model (arXiv 2509.09666, first version: it prepares both for learning from rewards).

Legend: B images, D features.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from unigen.config.schema import Config
from unigen.data.batch import Batch, Drawing, Sample, collate
from unigen.data.draws import Draws
from unigen.data.preparation import blank_image
from unigen.data.sample import RawSample
from unigen.data.uae_preparation import DrawingPreparer
from unigen.generation.flow import Guidance, LatentNoise, draw_with_gradient, guide, is_guided
from unigen.models.text_states import PromptStates
from unigen.models.uae_adapters import Side
from unigen.models.uae_config import latent_side
from unigen.objectives.flow_matching import sampling_sigmas
from unigen.objectives.image_features import feature_distances
from unigen.training.stages.longcap import prompt_length
from unigen.training.stages.stage import are_counted, in_chunks
from unigen.training.stages.uae import UaeStage, UaeStart

LOSS = "features"


class ImageFeatures(Protocol):
    """A frozen network that says what images show."""

    def features(self, pixels_N3HW: Tensor) -> Tensor:
        """Features (N, D) of pixels in [-1, 1] of any size, with their gradient."""


class ColdstartStage(UaeStage):
    """Every image is drawn from its own seed, with guidance."""

    adapted_side: ClassVar[Side] = "language_model"
    trained_parts: ClassVar[tuple[str, ...]] = ("llm.model.language_model.", "projector.", "decoder.")

    def __init__(self, config: Config, start: UaeStart, device: torch.device, encoder: ImageFeatures) -> None:
        super().__init__(config, start, device)
        self._encoder = (encoder,)  # in a tuple, so that it is no submodule

    @property
    def prepare(self) -> DrawingPreparer:
        return self.drawing_preparer()

    def batches(self, samples: Sequence[Sample]) -> Iterator[Batch]:
        for chunk in in_chunks(sorted(samples, key=prompt_length), self._config.training.rows_per_micro_batch):
            yield collate([chunk])

    def counts(self, samples: Sequence[Sample]) -> dict[str, int]:
        return {LOSS: len(samples)}

    def empty_batch(self) -> Batch:
        blank = blank_image(self.uae.config.image_resolution)
        return collate([[self.prepare(RawSample("", "t2i", (blank,)), Draws(0, "", 0))]])

    def forward(self, batch: Batch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        pixels_B3HW = torch.stack(batch.target_images)
        (encoder,) = self._encoder
        with torch.no_grad():
            wanted_BD = encoder.features(pixels_B3HW)
        losses_B = feature_distances(encoder.features(self.draw(batch.drawings)), wanted_BD)
        losses_B = losses_B * are_counted(batch).to(losses_B.device)
        return losses_B.sum() * scales.get(LOSS, 0.0), {LOSS: losses_B.detach().sum()}

    def draw(self, drawings: Sequence[Drawing]) -> Tensor:
        """Images (B, 3, H, W) about [-1, 1] of their words, with the gradient."""
        settings, config = self._config.coldstart, self.uae.config
        side = latent_side(config, settings.resolution or config.image_resolution)
        noise = LatentNoise([one.seed for one in drawings], (self.uae.latent_channels, side, side), self.uae.device)
        latents_BChw = draw_with_gradient(
            self.uae,
            self._guidance(drawings),
            noise.draw(),
            sampling_sigmas(settings.steps, config.shift),
            checkpoints=settings.checkpoint_steps,
        )
        return self.uae.decode_latents(latents_BChw)

    def _guidance(self, drawings: Sequence[Drawing]) -> Guidance:
        """What leads each drawing; the words that guidance leads away from go through the language model with the captions."""
        scale, null_words = self._config.coldstart.guidance_scale, self.null_prompt
        is_masked = self.uae.config.decoder_text_mask
        if not is_guided(scale) or null_words is None:
            found = self.prompt_states(drawings)
            return guide(found, [one.blank() for one in found], scale, is_masked=is_masked)
        ids = [one.prompt_ids.tolist() for one in drawings] + [self.template.draw_prompt(null_words)]
        *found, null = self.uae.prompt_states(ids, self._processor.tokenizer.pad_token_id)
        nulls: list[PromptStates] = [null] * len(found)
        return guide(found, nulls, scale, is_masked=is_masked)
