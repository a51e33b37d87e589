# SPDX-License-Identifier: Apache-2.0
"""Pre-training of UAE's decoder on long captions by flow matching; the language model is frozen (arXiv 2509.09666).

Legend: B images, C channels, h w sides of a latent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from unigen.config.schema import Config
from unigen.data.batch import Batch, Sample, collate
from unigen.data.draws import Draws
from unigen.data.preparation import blank_image
from unigen.data.sample import RawSample
from unigen.data.uae_preparation import DrawingPreparer
from unigen.generation.flow import LatentNoise
from unigen.models.uae_adapters import Side
from unigen.models.uae_config import latent_side
from unigen.objectives import flow_matching
from unigen.training.stages.stage import are_counted, in_chunks
from unigen.training.stages.uae import UaeStage

LOSS = "flow"


class LongcapStage(UaeStage):
    """What an image's loss is depends on its own draws alone: neither on the others of its batch, nor on how it is padded."""

    adapted_side: ClassVar[Side] = "decoder"
    trained_parts: ClassVar[tuple[str, ...]] = ("decoder.",)

    @classmethod
    def parts_to_train(cls, config: Config) -> tuple[str, ...]:
        return (*cls.trained_parts, "projector.") if config.longcap.train_projector else cls.trained_parts

    @classmethod
    def parts_beside_adapter(cls, config: Config) -> tuple[str, ...]:
        return ("projector",) if config.longcap.train_projector else ()

    @property
    def prepare(self) -> DrawingPreparer:
        return self.drawing_preparer(self._config.training.prompt_drop_prob)

    def batches(self, samples: Sequence[Sample]) -> Iterator[Batch]:
        """Images whose texts are about as long go together."""
        in_order = sorted(samples, key=prompt_length)
        for chunk in in_chunks(in_order, self._config.training.rows_per_micro_batch):
            yield collate([chunk])

    def counts(self, samples: Sequence[Sample]) -> dict[str, int]:
        return {LOSS: len(samples)}

    def empty_batch(self) -> Batch:
        blank = blank_image(self.uae.config.image_resolution)
        return collate([[self.prepare(RawSample("", "t2i", (blank,)), Draws(0, "", 0))]])

    @torch.no_grad()
    def encode(self, batch: Batch) -> Batch:
        """Latents of the images, each a draw of its own: the second numbers of its seed, of which the first are its noise."""
        return replace(
            batch, latents_BChw=self.uae.encode_images(torch.stack(batch.target_images), self._noise(batch)[1])
        )

    def forward(self, batch: Batch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        settings, data_BChw = self._config.longcap, batch.latents_BChw
        assert data_BChw is not None, "`encode` comes before"
        noise_BChw, _ = self._noise(batch)
        normal_B = torch.tensor([one.time_normal for one in batch.drawings], device=data_BChw.device)
        sigma_B = flow_matching.logit_normal_sigmas(normal_B, settings.timestep_mean, settings.timestep_std)
        velocity_BChw = self.uae.velocity(
            flow_matching.noised(data_BChw, noise_BChw, sigma_B), sigma_B, self.texts(batch.drawings)
        )
        losses_B = flow_matching.flow_losses(
            velocity_BChw,
            flow_matching.velocity_target(data_BChw, noise_BChw),
            flow_matching.loss_weights(sigma_B, settings.weighting),
        )
        losses_B = losses_B * are_counted(batch).to(losses_B.device)
        return losses_B.sum() * scales.get(LOSS, 0.0), {LOSS: losses_B.detach().sum()}

    def _noise(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Noise to draw each image from, and to draw its latents by."""
        config = self.uae.config
        side = latent_side(config, config.image_resolution)
        seeds = [one.seed for one in batch.drawings]
        noise = LatentNoise(seeds, (self.uae.latent_channels, side, side), batch.target_images[0].device)
        return noise.draw(), noise.draw()


def prompt_length(sample: Sample) -> int:
    """Tokens that an image is drawn from."""
    assert sample.drawing is not None
    return len(sample.drawing.prompt_ids)
