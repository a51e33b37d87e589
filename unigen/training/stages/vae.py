# SPDX-License-Identifier: Apache-2.0
"""The stage `tokenizer` of UAE: an image auto-encoder with normal distributions of latents (Kingma & Welling, arXiv 1312.6114).

Legend: B images.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from unigen.config.folders import find_config, find_model
from unigen.config.schema import Config
from unigen.data.batch import Batch, Sample
from unigen.data.draws import Draws
from unigen.data.sample import RawSample
from unigen.data.uae_preparation import SeededImagePreparer
from unigen.generation.flow import LatentNoise
from unigen.models.measured_vae import KIND, MeasuredVae, VaeOutput
from unigen.models.uae_config import SCHEDULER_FILE, diffusers_config
from unigen.objectives import reconstruction
from unigen.training.stages.stage import are_counted
from unigen.training.stages.tokenizer import TokenizerStage


class VaeStage(TokenizerStage):
    """Reconstruction, and a pull of the latents towards the standard normal distribution."""

    model: MeasuredVae  # type: ignore[assignment]  # it gives latents where the others give codes

    @property
    def prepare(self) -> Callable[[RawSample, Draws], Sample]:
        return SeededImagePreparer(self._config.model.image_resolution)

    def _rebuild(self, pixels_B3HW: Tensor, batch: Batch) -> VaeOutput:  # type: ignore[override]  # see `model`
        side = self.model.latent_side(pixels_B3HW.shape[-1])
        shape = (self.model.latent_channels, side, side)
        noise = LatentNoise([one.seed for one in batch.drawings], shape, pixels_B3HW.device)
        output: VaeOutput = self.model(pixels_B3HW, noise.draw())
        if self.training:
            self.model.measure(output, are_counted(batch).to(pixels_B3HW.device))
        return output

    def _latent_terms(self, output: VaeOutput) -> dict[str, Tensor]:  # type: ignore[override]  # see `model`
        return {"kl": reconstruction.divergence_from_normal(output.mean, output.log_variance)}

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        self.model.save(folder, state)

    def load(self, folder: Path) -> None:
        self.model.load_state_dict(MeasuredVae.load(folder).state_dict())


def build_vae_stage(config: Config, device: torch.device) -> VaeStage:
    """The stage with the weights of `model.uae.vae` (or `model.uae.diffusion`), or with random ones of its sizes.

    Raises:
        CheckpointError: a folder that is missing or holds another model.
    """
    folder = vae_folder(config, with_weights=config.model.initialization == "pretrained")
    if config.model.initialization == "pretrained":
        return VaeStage(config, MeasuredVae.load(folder))  # type: ignore[arg-type]  # see VaeStage
    return VaeStage(config, MeasuredVae(diffusers_config(folder, KIND)))  # type: ignore[arg-type]


def vae_folder(config: Config, *, with_weights: bool) -> Path:
    """Where the image auto-encoder lies, or where its sizes are said."""
    root, parts = config.data.root, config.model.uae
    find: Callable[..., Path] = find_model if with_weights else find_config
    if parts.vae is not None:
        return find(parts.vae, root)
    return find(parts.diffusion, root, files=(str(SCHEDULER_FILE),)) / "vae"
