# SPDX-License-Identifier: Apache-2.0
"""Mask2Former (arXiv 2112.01527) written plainly, with the parameter names and the orders of MMDetection 2.x.

Levels go from the lowest resolution to the highest; in a decoder layer the first attention is the one over the image, the second
the one among the queries; every bilinear sample is written out.

Legend: B images, C channels, H rows, W columns, S positions of all levels, Q queries, h heads, l levels, p points of a level,
K classes and one for none.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unigen.reference.mmdet_swin import FeedForward, MmdetSwin

NUM_POINTS = 4


class ConvNorm(nn.Module):
    """A convolution and a group norm."""

    def __init__(self, num_inputs: int, num_outputs: int, kernel: int, bias: bool, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_inputs, num_outputs, kernel, padding=kernel // 2, bias=bias)
        self.gn = nn.GroupNorm(groups, num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.gn(self.conv(features))


class Layers(nn.Module):
    """Layers one after another, under the name that they have there."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class NormedLayers(Layers):
    """The same with a norm for whatever reads their output."""

    def __init__(self, layers: Iterable[nn.Module], width: int) -> None:
        super().__init__(layers)
        self.post_norm = nn.LayerNorm(width)


class DeformableAttention(nn.Module):
    """Every position of every level looks at a few places of every level, which it chooses itself."""

    def __init__(self, width: int, num_heads: int, num_levels: int) -> None:
        super().__init__()
        self.shape = (num_heads, num_levels, NUM_POINTS)
        self.sampling_offsets = nn.Linear(width, num_heads * num_levels * NUM_POINTS * 2)
        self.attention_weights = nn.Linear(width, num_heads * num_levels * NUM_POINTS)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)

    def forward(self, hidden_BSC: Tensor, positions_BSC: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        query = hidden_BSC + positions_BSC
        offsets_BShlp2 = self.sampling_offsets(query).unflatten(-1, (*self.shape, 2))
        weights_BShlp = self.attention_weights(query).unflatten(-1, (self.shape[0], -1)).softmax(-1)
        weights_BShlp = weights_BShlp.unflatten(-1, self.shape[1:])
        values = self.value_proj(hidden_BSC).split([height * width for height, width in sizes], dim=1)
        centres_S2 = torch.cat([_centres(height, width) for height, width in sizes])
        heads = []
        for head in range(self.shape[0]):
            total = torch.zeros(*hidden_BSC.shape[:2], hidden_BSC.shape[2] // self.shape[0])
            for level, (height, width) in enumerate(sizes):
                value = values[level].unflatten(-1, (self.shape[0], -1))[:, :, head].unflatten(1, (height, width))
                for point in range(NUM_POINTS):
                    # Places are pixels of the level; offsets are, too.
                    places_BS2 = centres_S2 * torch.tensor([width, height]) + offsets_BShlp2[:, :, head, level, point]
                    sampled = _sample(value, places_BS2 - 0.5)
                    total = total + weights_BShlp[:, :, head, level, point, None] * sampled
            heads.append(total)
        return self.output_proj(torch.cat(heads, dim=-1))


class EncoderLayer(nn.Module):
    def __init__(self, width: int, num_heads: int, inner_width: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([DeformableAttention(width, num_heads, 3)])
        self.ffns = nn.ModuleList([FeedForward(width, inner_width, nn.ReLU())])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, hidden_BSC: Tensor, positions_BSC: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        hidden_BSC = self.norms[0](hidden_BSC + self.attentions[0](hidden_BSC, positions_BSC, sizes))
        return self.norms[1](hidden_BSC + self.ffns[0](hidden_BSC))


class PixelDecoder(nn.Module):
    """The backbone's maps to three maps of one width, lowest resolution first, and the map that masks are read from."""

    def __init__(self, inputs: Sequence[int], width: int, num_layers: int, num_heads: int, inner: int) -> None:
        super().__init__()
        groups = 32
        self.input_convs = nn.ModuleList(ConvNorm(num, width, 1, True, groups) for num in inputs[:0:-1])
        self.encoder = Layers(EncoderLayer(width, num_heads, inner) for _ in range(num_layers))
        self.level_encoding = nn.Embedding(3, width)
        self.lateral_convs = nn.ModuleList([ConvNorm(inputs[0], width, 1, False, groups)])
        self.output_convs = nn.ModuleList([ConvNorm(width, width, 3, False, groups)])
        self.mask_feature = nn.Conv2d(width, width, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        low_to_high = [conv(features) for conv, features in zip(self.input_convs, maps[:0:-1], strict=True)]
        sizes = [(features.shape[2], features.shape[3]) for features in low_to_high]
        hidden_BSC = torch.cat([features.flatten(2).transpose(1, 2) for features in low_to_high], dim=1)
        places = [
            sine_positions(*size, hidden_BSC.shape[-1]) + level
            for size, level in zip(sizes, self.level_encoding.weight, strict=True)
        ]
        positions_BSC = torch.cat(places)[None].expand_as(hidden_BSC)
        for layer in self.encoder.layers:
            hidden_BSC = layer(hidden_BSC, positions_BSC, sizes)
        parts = hidden_BSC.split([height * width for height, width in sizes], dim=1)
        levels = [part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]
        finest = self.lateral_convs[0](maps[0])
        enlarged = F.interpolate(levels[-1], finest.shape[2:], mode="bilinear", align_corners=False)
        return levels, self.mask_feature(self.output_convs[0](finest + enlarged).relu())


class Attention(nn.Module):
    """Queries look at keys, but not at those that are hidden from them."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, num_heads, batch_first=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, hidden_BQS: Tensor | None = None) -> Tensor:
        mask = None if hidden_BQS is None else hidden_BQS.repeat_interleave(self.attn.num_heads, dim=0)
        return self.attn(query, key, value, attn_mask=mask, need_weights=False)[0]


class DecoderLayer(nn.Module):
    """Queries look at one level of the image, then at each other."""

    def __init__(self, width: int, num_heads: int, inner_width: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(Attention(width, num_heads) for _ in range(2))
        self.ffns = nn.ModuleList([FeedForward(width, inner_width, nn.ReLU())])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(
        self, query_BQC: Tensor, query_place: Tensor, level_BSC: Tensor, level_place: Tensor, hidden_BQS: Tensor
    ) -> Tensor:
        image, among = self.attentions
        seen = image(query_BQC + query_place, level_BSC + level_place, level_BSC, hidden_BQS)
        query_BQC = self.norms[0](query_BQC + seen)
        placed = query_BQC + query_place
        query_BQC = self.norms[1](query_BQC + among(placed, placed, query_BQC))
        return self.norms[2](query_BQC + self.ffns[0](query_BQC))


class Head(nn.Module):
    """Features to the classes and the mask of every query."""

    def __init__(self, inputs: Sequence[int], sizes: "MmdetSizes") -> None:
        super().__init__()
        width = sizes.width
        self.pixel_decoder = PixelDecoder(
            inputs, width, sizes.encoder_layers, sizes.num_heads, sizes.encoder_inner_width
        )
        layers = [DecoderLayer(width, sizes.num_heads, sizes.decoder_inner_width) for _ in range(sizes.decoder_layers)]
        self.transformer_decoder = NormedLayers(layers, width)
        self.query_embed = nn.Embedding(sizes.num_queries, width)
        self.query_feat = nn.Embedding(sizes.num_queries, width)
        self.level_embed = nn.Embedding(3, width)
        self.cls_embed = nn.Linear(width, sizes.num_classes + 1)
        steps = [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)]
        self.mask_embed = nn.Sequential(*steps)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        levels, mask_features = self.pixel_decoder(maps)
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        batch, width = mask_features.shape[:2]
        query_BQC = self.query_feat.weight.expand(batch, -1, -1)
        logits, masks, hidden_BQS = self._read(query_BQC, mask_features, sizes[0])
        for index, layer in enumerate(self.transformer_decoder.layers):
            level = index % 3
            flat_BSC = levels[level].flatten(2).transpose(1, 2) + self.level_embed.weight[level]
            places = sine_positions(*sizes[level], width)
            query_BQC = layer(query_BQC, self.query_embed.weight, flat_BSC, places, hidden_BQS)
            logits, masks, hidden_BQS = self._read(query_BQC, mask_features, sizes[(level + 1) % 3])
        return logits, masks

    def _read(self, query_BQC: Tensor, mask_features: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits, mask logits, and what of a level of `size` each query may not look at: what is outside its mask. A
        query with an empty mask looks everywhere."""
        final = self.transformer_decoder.post_norm(query_BQC)
        masks_BQHW = torch.einsum("bqc,bchw->bqhw", self.mask_embed(final), mask_features)
        outside = F.interpolate(masks_BQHW, size, mode="bilinear", align_corners=False).flatten(2).sigmoid() < 0.5
        return self.cls_embed(final), masks_BQHW, outside & ~outside.all(dim=-1, keepdim=True)


@dataclass(frozen=True)
class MmdetSizes:
    """The sizes of `mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco`, any of which may be given otherwise."""

    swin_width: int = 96
    swin_depths: Sequence[int] = (2, 2, 18, 2)
    swin_heads: Sequence[int] = (3, 6, 12, 24)
    window: int = 7
    width: int = 256
    num_heads: int = 8
    encoder_layers: int = 6
    encoder_inner_width: int = 1024
    decoder_layers: int = 9
    decoder_inner_width: int = 2048
    num_queries: int = 100
    num_classes: int = 80


class MmdetMask2Former(nn.Module):
    """The whole detector."""

    def __init__(self, sizes: MmdetSizes) -> None:
        super().__init__()
        self.backbone = MmdetSwin(sizes.swin_width, sizes.swin_depths, sizes.swin_heads, sizes.window)
        self.panoptic_head = Head([sizes.swin_width << index for index in range(4)], sizes)

    def forward(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels to class logits (B, Q, K) and mask logits (B, Q, H / 4, W / 4)."""
        return self.panoptic_head(self.backbone(pixels_B3HW))


def sine_positions(height: int, width: int, channels: int) -> Tensor:
    """(H * W, C): half of the channels tell the row, half the column, by sines and cosines of falling frequency."""
    half = channels // 2
    table = torch.empty(height, width, channels)
    frequencies = [10000 ** (2 * (index // 2) / half) for index in range(half)]
    for row in range(height):
        for column in range(width):
            down = (row + 1) / (height + 1e-6) * 2 * math.pi
            right = (column + 1) / (width + 1e-6) * 2 * math.pi
            angles = [down / one for one in frequencies] + [right / one for one in frequencies]
            waves = [math.sin(angle) if index % 2 == 0 else math.cos(angle) for index, angle in enumerate(angles)]
            table[row, column] = torch.tensor(waves)
    return table.flatten(0, 1)


def _centres(height: int, width: int) -> Tensor:
    """(H * W, 2): (x, y) of the middle of every cell, in [0, 1]."""
    y_H, x_W = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    return torch.stack([x_W.expand(height, width), y_H[:, None].expand(height, width)], dim=-1).flatten(0, 1)


def _sample(value_BHWC: Tensor, places_BS2: Tensor) -> Tensor:
    """(B, S, C): values between the four cells around each (x, y); outside of the map there are zeros."""
    batch, height, width, channels = value_BHWC.shape
    corner = places_BS2.floor()
    share = places_BS2 - corner
    images = torch.arange(batch)[:, None]
    total = torch.zeros(*places_BS2.shape[:2], channels)
    for right in (0, 1):
        for down in (0, 1):
            x, y = corner[..., 0].long() + right, corner[..., 1].long() + down
            is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            cells = value_BHWC[images, y.clamp(0, height - 1), x.clamp(0, width - 1)]
            weight = (share[..., 0] if right else 1 - share[..., 0]) * (share[..., 1] if down else 1 - share[..., 1])
            total = total + cells * (weight * is_inside)[..., None]
    return total
