# SPDX-License-Identifier: Apache-2.0
"""Features of a pre-trained VGG16 for the optional perceptual term of a tokenizer."""

from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, vgg16

from unigen.errors import CheckpointError

LAST_LAYERS = (3, 8, 15)
"""Ends of the first three blocks, after their activations."""


class PerceptualFeatures(nn.Module):
    """Pixels (B, 3, H, W) in [-1, 1] -> feature maps of the first blocks, frozen.

    Raises:
        CheckpointError: the weights are not in torch's cache and cannot be downloaded.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            network = vgg16()
        network.load_state_dict(_released_weights(), assign=True)
        self.layers = network.features[: LAST_LAYERS[-1] + 1].eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, pixels_B3HW: Tensor) -> list[Tensor]:
        hidden = ((pixels_B3HW + 1) / 2 - self.mean) / self.deviation
        maps = []
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden)
            if number in LAST_LAYERS:
                maps.append(hidden)
        return maps


def _released_weights() -> dict[str, Tensor]:
    """Of the cache, else downloaded into it; read as tensors alone, and only if they are what the name's hash says."""
    try:
        return VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError, UnpicklingError) as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(VGG16_Weights.IMAGENET1K_V1.url).name
        raise CheckpointError(
            f"torchvision's VGG16 is neither in {file} nor can it be fetched ({_one_line(error)}); fetch "
            f"{VGG16_Weights.IMAGENET1K_V1.url} to there on a login node, or set tokenizer_stage.perceptual_weight=0"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
