# SPDX-License-Identifier: Apache-2.0
"""An image auto-encoder of diffusers in training: the scale of its latents is measured while it learns.

Legend: B images, C channels, h w sides of a latent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor, distributed, nn

from unigen.errors import CheckpointError
from unigen.models.uae import load_diffusers
from unigen.models.uae_config import diffusers_config
from unigen.models.weights import load_exactly, read_weights

KIND = "AutoencoderKL"
PART = "vae."
MEASURED_FILE = "latents.json"
"""Beside the weights: what the latents were found to be, for training to go on from."""
DECAY = 0.99


@dataclass(frozen=True)
class VaeOutput:
    """A batch of images on their way through."""

    reconstruction: Tensor
    """(B, 3, H, W)."""
    mean: Tensor
    """Of the latents' normal distributions (B, C, h, w)."""
    log_variance: Tensor
    """(B, C, h, w)."""


class MeasuredVae(nn.Module):
    """Latents are measured over all channels and ranks, as a moving mean that forgets with DECAY."""

    latent_moments: Tensor
    """Their weight, their mean and their mean square, in float64."""

    def __init__(self, described: dict[str, Any]) -> None:
        """`described` is the content of its config.json."""
        super().__init__()
        self.vae = getattr(load_diffusers(), KIND).from_config(described)
        self.register_buffer("latent_moments", torch.zeros(3, dtype=torch.float64))

    @classmethod
    def load(cls, folder: Path) -> MeasuredVae:
        """From a folder in diffusers' layout.

        Raises:
            CheckpointError: another kind of model, or weights that do not fit.
        """
        found = cls(diffusers_config(folder, KIND))
        load_exactly(found.vae, read_weights(folder), folder)
        if (folder / MEASURED_FILE).is_file():
            found.latent_moments.copy_(_read_moments(folder / MEASURED_FILE))
        return found

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    def latent_side(self, resolution: int) -> int:
        """Side of the latents of square images of this side in pixels."""
        return resolution // 2 ** (len(self.vae.config.block_out_channels) - 1)

    def forward(self, pixels_B3HW: Tensor, noise_BChw: Tensor) -> VaeOutput:
        """Images in [-1, 1] and what is made of them, by a draw from each latent's distribution."""
        found = self.vae.encode(pixels_B3HW).latent_dist
        latents_BChw = found.mean + found.std * noise_BChw
        return VaeOutput(self.vae.decode(latents_BChw).sample, found.mean, found.logvar)

    @torch.no_grad()
    def measure(self, output: VaeOutput, counted_B: Tensor) -> None:
        """Take the images that count into the moments of the latents; all ranks make this call together."""
        mean, variance = (part[counted_B].double() for part in (output.mean, output.log_variance.exp()))
        sums = torch.stack([mean.new_tensor(float(mean.numel())), mean.sum(), (mean**2 + variance).sum()])
        if distributed.is_initialized():
            distributed.all_reduce(sums)
        if sums[0] > 0:
            self.latent_moments.lerp_(sums / sums[0], 1 - DECAY)

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write a folder in diffusers' layout, whose config.json says the shift and the scale that give latents mean 0 and
        variance 1."""
        state = self.state_dict() if state is None else state
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name.removeprefix(PART): tensor for name, tensor in state.items() if name.startswith(PART)}
        save_torch_state_dict(weights, folder, filename_pattern="diffusion_pytorch_model{suffix}.safetensors")
        moments = state["latent_moments"].tolist()
        weight, mean, square = moments
        described = {**diffusers_described(self.vae)}
        if weight > 0:
            shift = mean / weight
            described |= {"shift_factor": shift, "scaling_factor": (square / weight - shift**2) ** -0.5}
        (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        (folder / MEASURED_FILE).write_text(json.dumps({"moments": moments}) + "\n", encoding="utf-8")


def diffusers_described(model: Any) -> dict[str, Any]:
    """What a config.json says of a model of diffusers."""
    kept = {name: value for name, value in model.config.items() if not name.startswith("_")}
    return {"_class_name": type(model).__name__, **kept}


def _read_moments(file: Path) -> Tensor:
    try:
        return torch.tensor(json.loads(file.read_text(encoding="utf-8"))["moments"], dtype=torch.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file} does not say what the latents were; remove it, or the whole checkpoint"
        ) from error
