# SPDX-License-Identifier: Apache-2.0
"""A PatchGAN discriminator for the optional adversarial term of a tokenizer.

After pix2pix (arXiv 1611.07004, section 3.2).
"""

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Images (B, 3, H, W) -> logits (B, 1, h, w), one per patch: above zero where the patch looks real.

    Group instead of batch norm, so that a logit depends on its own image alone, at any batch size and rank count.
    """

    def __init__(self, base_channels: int = 64, num_downsamples: int = 3, norm_groups: int = 32) -> None:
        """`norm_groups` must divide `base_channels`; channels double at each downsampling."""
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, base_channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = base_channels
        for level in range(1, num_downsamples + 1):
            stride = 2 if level < num_downsamples else 1
            layers += [
                nn.Conv2d(channels, 2 * channels, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(norm_groups, 2 * channels),
                nn.LeakyReLU(0.2),
            ]
            channels *= 2
        layers.append(nn.Conv2d(channels, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        return self.layers(pixels_B3HW)
