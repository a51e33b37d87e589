# SPDX-License-Identifier: Apache-2.0
"""Features of a pre-trained VGG16 for the optional perceptual term of a tokenizer."""

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
        try:
            layers = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).features
        except (URLError, OSError) as error:
            raise CheckpointError(
                f"cannot fetch torchvision's VGG16 ({error}); set tokenizer_stage.perceptual_weight=0 or fetch it on a login node"
            ) from error
        self.layers = layers[: LAST_LAYERS[-1] + 1].eval().requires_grad_(False)
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
