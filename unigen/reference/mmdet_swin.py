# SPDX-License-Identifier: Apache-2.0
"""Swin (arXiv 2103.14030) written plainly, with the parameter names and the channel orders of MMDetection 2.x.

It differs from other implementations in two ways that a checkpoint carries: query, key and value are one matrix, and where four
neighbouring patches become one, their channels are interleaved (channel by channel the four patches row by row).

Legend: B images, H rows, W columns, C channels, N windows of all images, T positions of a window, h heads, d channels of a head.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, width: int, inner_width: int, activation: nn.Module) -> None:
        super().__init__()
        first = nn.Sequential(nn.Linear(width, inner_width), activation)
        self.layers = nn.Sequential(first, nn.Linear(inner_width, width))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.layers(hidden)


class WindowAttention(nn.Module):
    """Attention inside square windows, with a learned bias for each head and each offset of two positions."""

    def __init__(self, width: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        self.relative_position_index: Tensor
        self.register_buffer("relative_position_index", _offset_numbers(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, windows_NTC: Tensor, hidden_from_NTT: Tensor) -> Tensor:
        query, key, value = self.qkv(windows_NTC).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias_TTh = self.relative_position_bias_table[self.relative_position_index]
        scores_NhTT = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + bias_TTh.permute(2, 0, 1)
        scores_NhTT = scores_NhTT.masked_fill(hidden_from_NTT[:, None], -torch.inf)
        mixed_NhTd = scores_NhTT.softmax(-1) @ value
        return self.proj(mixed_NhTd.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention in windows, which every second block shifts by half a window, and a feed-forward layer."""

    def __init__(self, width: int, num_heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"w_msa": WindowAttention(width, num_heads, window)})
        self.norm2 = nn.LayerNorm(width)
        self.ffn = FeedForward(width, 4 * width, nn.GELU())

    def forward(self, hidden_BHWC: Tensor) -> Tensor:
        hidden_BHWC = hidden_BHWC + self._attend(self.norm1(hidden_BHWC))
        return hidden_BHWC + self.ffn(self.norm2(hidden_BHWC))

    def _attend(self, hidden_BHWC: Tensor) -> Tensor:
        _, height, width, _ = hidden_BHWC.shape
        padded = F.pad(hidden_BHWC, (0, 0, 0, -width % self.window, 0, -height % self.window))
        rolled = padded.roll((-self.shift, -self.shift), dims=(1, 2))
        windows_NTC = _windows(rolled, self.window)
        mixed_NTC = self.attn["w_msa"](windows_NTC, self._hidden_from(rolled))
        mixed = _from_windows(mixed_NTC, rolled.shape, self.window).roll((self.shift, self.shift), dims=(1, 2))
        return mixed[:, :height, :width]

    def _hidden_from(self, rolled_BHWC: Tensor) -> Tensor:
        """Which positions of a window may not see each other: those that were rolled over an edge and those that were not."""
        batch, height, width, _ = rolled_BHWC.shape
        over_H = torch.arange(height) >= height - self.shift
        over_W = torch.arange(width) >= width - self.shift
        sides_HW = 2 * over_H[:, None] + over_W[None, :].int()
        sides_NT = _windows(sides_HW[None, :, :, None].expand(batch, -1, -1, -1), self.window)[..., 0]
        return sides_NT[:, :, None] != sides_NT[:, None, :]


class PatchMerging(nn.Module):
    """Four neighbours become one position of twice the channels; the channels of the four are interleaved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, hidden_BHWC: Tensor) -> Tensor:
        _, height, width, _ = hidden_BHWC.shape
        padded = F.pad(hidden_BHWC, (0, 0, 0, width % 2, 0, height % 2))
        neighbours = [padded[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return self.reduction(self.norm(torch.stack(neighbours, dim=-1).flatten(-2)))


class Stage(nn.Module):
    """Blocks of one resolution, then (but for the last stage) the way to the next."""

    def __init__(self, width: int, depth: int, num_heads: int, window: int, is_last: bool) -> None:
        super().__init__()
        shifts = [0 if index % 2 == 0 else window // 2 for index in range(depth)]
        self.blocks = nn.ModuleList(Block(width, num_heads, window, shift) for shift in shifts)
        self.downsample = None if is_last else PatchMerging(width)

    def forward(self, hidden_BHWC: Tensor) -> Tensor:
        for block in self.blocks:
            hidden_BHWC = block(hidden_BHWC)
        return hidden_BHWC


class PatchEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, 4, stride=4)
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        _, _, height, width = pixels_B3HW.shape
        padded = F.pad(pixels_B3HW, (0, -width % 4, 0, -height % 4))
        return self.norm(self.projection(padded).permute(0, 2, 3, 1))


class MmdetSwin(nn.Module):
    """The backbone: pixels to one map of features for each of the four stages."""

    def __init__(self, width: int, depths: Sequence[int], heads: Sequence[int], window: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(width)
        last = len(depths) - 1
        sizes = enumerate(zip(depths, heads, strict=True))
        stages = [Stage(width << index, depth, num, window, index == last) for index, (depth, num) in sizes]
        self.stages: Sequence[Stage] = nn.ModuleList(stages)  # type: ignore[assignment]
        for index in range(len(depths)):
            self.add_module(f"norm{index}", nn.LayerNorm(width << index))

    def forward(self, pixels_B3HW: Tensor) -> list[Tensor]:
        """Pixels (B, 3, H, W) to features (B, C << i, H / (4 << i), W / (4 << i)) for every stage i."""
        hidden_BHWC = self.patch_embed(pixels_B3HW)
        outputs = []
        for index, stage in enumerate(self.stages):
            hidden_BHWC = stage(hidden_BHWC)
            outputs.append(getattr(self, f"norm{index}")(hidden_BHWC).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                hidden_BHWC = stage.downsample(hidden_BHWC)
        return outputs


def _offset_numbers(window: int) -> Tensor:
    """(T, T): the row of the bias table for each pair of positions of a window."""
    numbers = torch.empty(window**2, window**2, dtype=torch.long, device="cpu")
    for here in range(window**2):
        for there in range(window**2):
            down = here // window - there // window
            right = here % window - there % window
            numbers[here, there] = (down + window - 1) * (2 * window - 1) + right + window - 1
    return numbers


def _windows(hidden_BHWC: Tensor, window: int) -> Tensor:
    """(B, H, W, C) to (N, T, C), window by window along the rows."""
    parts = hidden_BHWC.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return parts.transpose(2, 3).flatten(0, 2).flatten(1, 2)


def _from_windows(windows_NTC: Tensor, shape: Sequence[int], window: int) -> Tensor:
    """The inverse of `_windows`, to a tensor of `shape` (B, H, W, C)."""
    batch, height, width, _ = shape
    parts = windows_NTC.unflatten(1, (window, window)).unflatten(0, (batch, height // window, width // window))
    return parts.transpose(2, 3).flatten(3, 4).flatten(1, 2)
