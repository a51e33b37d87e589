# SPDX-License-Identifier: Apache-2.0
"""Building blocks of convolutional image auto-encoders, with the parameter names of the VQGAN family.

Shapes: B images, C channels, H height, W width, N = H * W positions.
"""

from collections.abc import Collection
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPSILON = 1e-6


def group_norm(num_channels: int, num_groups: int) -> nn.GroupNorm:
    """The normalisation all blocks use; `num_groups` must divide `num_channels`."""
    return nn.GroupNorm(num_groups, num_channels, eps=NORM_EPSILON)


class ResnetBlock(nn.Module):
    """norm, swish, 3x3 convolution, twice, added to the input (through a 1x1 convolution where channels change)."""

    def __init__(self, in_channels: int, out_channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, num_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, num_groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        residual_BCHW = self.conv1(F.silu(self.norm1(hidden_BCHW)))
        residual_BCHW = self.conv2(F.silu(self.norm2(residual_BCHW)))
        if self.nin_shortcut is not None:
            hidden_BCHW = self.nin_shortcut(hidden_BCHW)
        return hidden_BCHW + residual_BCHW


class AttentionBlock(nn.Module):
    """Single-head attention over all positions of an image, with a residual connection."""

    def __init__(self, num_channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm = group_norm(num_channels, num_groups)
        self.q = nn.Conv2d(num_channels, num_channels, 1)
        self.k = nn.Conv2d(num_channels, num_channels, 1)
        self.v = nn.Conv2d(num_channels, num_channels, 1)
        self.proj_out = nn.Conv2d(num_channels, num_channels, 1)

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        normed_BCHW = self.norm(hidden_BCHW)
        query_B1NC, key_B1NC, value_B1NC = (
            projection(normed_BCHW).flatten(2).transpose(1, 2).unsqueeze(1) for projection in (self.q, self.k, self.v)
        )
        attended_B1NC = F.scaled_dot_product_attention(query_B1NC, key_B1NC, value_B1NC)
        attended_BCHW = attended_B1NC.squeeze(1).transpose(1, 2).reshape(hidden_BCHW.shape)
        return hidden_BCHW + self.proj_out(attended_BCHW)


class Downsample(nn.Module):
    """Halve the size: one row and column of zeros at the bottom and right, then a 3x3 convolution of stride 2."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_channels, num_channels, 3, stride=2)

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        return self.conv(F.pad(hidden_BCHW, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the size: every pixel repeated, then a 3x3 convolution."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_channels, num_channels, 3, padding=1)

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        return self.conv(F.interpolate(hidden_BCHW, scale_factor=2.0, mode="nearest"))


class MiddleBlock(nn.Module):
    """What stands at the lowest resolution: a residual block, attention, a residual block."""

    def __init__(self, num_channels: int, num_groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(num_channels, num_channels, num_groups)
        self.attn_1 = AttentionBlock(num_channels, num_groups)
        self.block_2 = ResnetBlock(num_channels, num_channels, num_groups)

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(hidden_BCHW)))


class Level(nn.Module):
    """The residual blocks of one resolution, each with attention after it if asked, then a change of resolution, if any."""

    def __init__(
        self,
        channels: list[int],
        num_groups: int,
        *,
        downsample: bool = False,
        upsample: bool = False,
        has_attention: bool = False,
    ) -> None:
        """`channels` are those between the blocks: len(channels) - 1 blocks."""
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(before, after, num_groups) for before, after in pairwise(channels))
        self.attn = nn.ModuleList(AttentionBlock(after, num_groups) for after in channels[1:] if has_attention)
        self.downsample = Downsample(channels[-1]) if downsample else None
        self.upsample = Upsample(channels[-1]) if upsample else None

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        for number, block in enumerate(self.block):
            hidden_BCHW = block(hidden_BCHW)
            if self.attn:
                hidden_BCHW = self.attn[number](hidden_BCHW)
        resample = self.downsample or self.upsample
        return hidden_BCHW if resample is None else resample(hidden_BCHW)


class Encoder(nn.Module):
    """Pixels (B, image channels, H, W) -> latents (B, latent channels, H / 2^(levels - 1), W / 2^(levels - 1))."""

    def __init__(
        self,
        image_channels: int,
        level_channels: list[int],
        num_blocks: list[int],
        latent_channels: int,
        num_groups: int,
    ) -> None:
        """`level_channels` and `num_blocks` list the levels from the highest resolution to the lowest."""
        super().__init__()
        stem_channels, last = level_channels[0], len(level_channels) - 1
        self.conv_in = nn.Conv2d(image_channels, stem_channels, 3, padding=1)
        before = [stem_channels, *level_channels[:-1]]
        self.down = nn.ModuleList(
            Level([before[i]] + [level_channels[i]] * num_blocks[i], num_groups, downsample=i < last)
            for i in range(len(level_channels))
        )
        self.mid = MiddleBlock(level_channels[-1], num_groups)
        self.norm_out = group_norm(level_channels[-1], num_groups)
        self.conv_out = nn.Conv2d(level_channels[-1], latent_channels, 3, padding=1)
        self.quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        hidden_BCHW = self.conv_in(pixels_BCHW)
        for level in self.down:
            hidden_BCHW = level(hidden_BCHW)
        hidden_BCHW = F.silu(self.norm_out(self.mid(hidden_BCHW)))
        return self.quant_conv(self.conv_out(hidden_BCHW))


class Decoder(nn.Module):
    """Latents -> pixels: the mirror of Encoder, run from the last level (lowest resolution) to level 0."""

    def __init__(
        self,
        image_channels: int,
        level_channels: list[int],
        num_blocks: list[int],
        latent_channels: int,
        num_groups: int,
        *,
        attention_levels: Collection[int] = (),
        has_post_quant_conv: bool = True,
    ) -> None:
        """`level_channels` and `num_blocks` list the levels from the highest resolution to the lowest."""
        super().__init__()
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1) if has_post_quant_conv else None
        self.conv_in = nn.Conv2d(latent_channels, level_channels[-1], 3, padding=1)
        self.mid = MiddleBlock(level_channels[-1], num_groups)
        before = [*level_channels[1:], level_channels[-1]]
        self.up = nn.ModuleList(
            Level(
                [before[i]] + [level_channels[i]] * num_blocks[i],
                num_groups,
                upsample=i > 0,
                has_attention=i in attention_levels,
            )
            for i in range(len(level_channels))
        )
        self.norm_out = group_norm(level_channels[0], num_groups)
        self.conv_out = nn.Conv2d(level_channels[0], image_channels, 3, padding=1)

    def forward(self, latents_BCHW: Tensor) -> Tensor:
        if self.post_quant_conv is not None:
            latents_BCHW = self.post_quant_conv(latents_BCHW)
        hidden_BCHW = self.mid(self.conv_in(latents_BCHW))
        for level in reversed(self.up):
            hidden_BCHW = level(hidden_BCHW)
        return self.conv_out(F.silu(self.norm_out(hidden_BCHW)))
