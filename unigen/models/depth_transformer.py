# SPDX-License-Identifier: Apache-2.0
"""The depth transformer: from the hidden state of an image position to the codes of that position, one depth after another.

Source: Lee et al., arXiv 2203.01941, section 3.2, with VILA-U's weight names. Slot 0 reads the hidden state, slot d the sum of
the code embeddings before depth d; slot d predicts code d.
Legend: B images, N positions, M = B * N, S slots, P depths, D hidden size, W residual width, A attention width, H heads,
C channels of a code embedding, K codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unigen.errors import ConfigError

MLP_RATIO = 4


@dataclass(frozen=True)
class DepthTransformerSizes:
    """The released sizes by default. `attention_width` is what it spends its parameters on: the residual width is enough."""

    depth: int = 4
    codebook_size: int = 16384
    code_channels: int = 1024
    hidden_size: int = 896
    """Of the language model."""
    width: int = 896
    attention_width: int = 3584
    num_heads: int = 32
    num_layers: int = 6
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.attention_width % self.num_heads:
            raise ConfigError(
                f"depth_transformer.num_heads={self.num_heads} does not divide attention_width={self.attention_width}"
            )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass
class DepthCache:
    """Keys and values (M, H, S, A / H) of the slots so far, by layer."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def extend(self, layer: int, keys_MHSa: Tensor, values_MHSa: Tensor) -> tuple[Tensor, Tensor]:
        """Put the new slots behind those of the layer, and give all."""
        if layer == len(self.keys):
            self.keys.append(keys_MHSa)
            self.values.append(values_MHSa)
        else:
            self.keys[layer] = torch.cat([self.keys[layer], keys_MHSa], dim=2)
            self.values[layer] = torch.cat([self.values[layer], values_MHSa], dim=2)
        return self.keys[layer], self.values[layer]


class DepthAttention(nn.Module):
    """Causal attention over the slots of a position, at a width of its own."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, hidden_MSA: Tensor, cache: DepthCache | None, layer: int) -> Tensor:
        query_MHSa, key_MHSa, value_MHSa = (
            projection(hidden_MSA).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        if cache is not None:
            key_MHSa, value_MHSa = cache.extend(layer, key_MHSa, value_MHSa)
        # A single new slot sees every slot there is, which is what causal means for the last one.
        is_causal = query_MHSa.shape[2] > 1
        attended_MHSa = F.scaled_dot_product_attention(query_MHSa, key_MHSa, value_MHSa, is_causal=is_causal)
        return F.dropout(self.proj(attended_MHSa.transpose(1, 2).flatten(2)), self.dropout, self.training)


class DepthBlock(nn.Module):
    """Pre-norm attention, through projections where it is wider or narrower than the residual stream, and an MLP."""

    def __init__(self, sizes: DepthTransformerSizes) -> None:
        super().__init__()
        width, inner = sizes.width, sizes.attention_width
        self.ln1 = nn.LayerNorm(width)
        self.ln2 = nn.LayerNorm(width)
        self.attn = DepthAttention(inner, sizes.num_heads, sizes.dropout)
        self.attn_in_proj = nn.Linear(width, inner) if inner != width else nn.Identity()
        self.attn_out_proj = nn.Linear(inner, width) if inner != width else nn.Identity()
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width),
            nn.GELU(),
            nn.Linear(MLP_RATIO * width, width),
            nn.Dropout(sizes.dropout),
        )

    def forward(self, hidden_MSW: Tensor, cache: DepthCache | None, layer: int) -> Tensor:
        attended_MSA = self.attn(self.attn_in_proj(self.ln1(hidden_MSW)), cache, layer)
        hidden_MSW = hidden_MSW + self.attn_out_proj(attended_MSA)
        return hidden_MSW + self.mlp(self.ln2(hidden_MSW))


class _Blocks(nn.Module):
    def __init__(self, sizes: DepthTransformerSizes) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DepthBlock(sizes) for _ in range(sizes.num_layers))

    def forward(self, slots_MSW: Tensor, cache: DepthCache | None) -> Tensor:
        for layer, block in enumerate(self.blocks):
            slots_MSW = block(slots_MSW, cache, layer)
        return slots_MSW


class _Classifier(nn.Module):
    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_classes)


class DepthTransformer(nn.Module):
    """Weight names as in VILA-U: pos_emb_d, in_mlp_1 (codes), in_mlp_2 (hidden states), head_transformer, classifier_mlp."""

    def __init__(self, sizes: DepthTransformerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.pos_emb_d = nn.Parameter(torch.empty(1, sizes.depth, sizes.width))
        self.in_mlp_1 = nn.Linear(sizes.code_channels, sizes.width)
        self.in_mlp_2 = nn.Linear(sizes.hidden_size, sizes.width)
        self.head_transformer = _Blocks(sizes)
        self.classifier_mlp = _Classifier(sizes.width, sizes.codebook_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The table of slots alone: all else has its own way."""
        nn.init.normal_(self.pos_emb_d, std=0.02)

    def states(self, hidden_MD: Tensor, code_embeddings_MPC: Tensor) -> Tensor:
        """Normed states (M, P, W) whose product with `output_embedding_KW` (plus `output_bias_K`) are logits.

        Teacher-forced: slot d reads the true codes before depth d, so the last depth's embedding is not read. With embeddings
        of the first depths alone there are slots of those depths alone.
        """
        before_MPC = code_embeddings_MPC[:, :-1].cumsum(1)
        slots_MPW = torch.cat([self.in_mlp_2(hidden_MD)[:, None], self.in_mlp_1(before_MPC)], dim=1)
        return self._states(slots_MPW + self.pos_emb_d[:, : slots_MPW.shape[1]], None)

    def forward(self, hidden_MD: Tensor, code_embeddings_MPC: Tensor) -> Tensor:
        """Logits (M, P, K) of all depths."""
        return self.classifier_mlp.linear(self.states(hidden_MD, code_embeddings_MPC))

    @torch.no_grad()
    def decode(
        self, hidden_MD: Tensor, embed: Callable[[Tensor], Tensor], choose: Callable[[Tensor, int], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Codes (M, P) and the sum (M, C) of their embeddings, each slot computed once.

        Args:
            embed: codes (M,) -> their embeddings (M, C).
            choose: logits (M, K) and the depth -> codes (M,).
        """
        cache, codes = DepthCache(), []
        summed_MC = hidden_MD.new_zeros(hidden_MD.shape[0], self.sizes.code_channels)
        for depth in range(self.sizes.depth):
            slot_MW = self.in_mlp_1(summed_MC) if depth else self.in_mlp_2(hidden_MD)
            states_M1W = self._states((slot_MW + self.pos_emb_d[:, depth])[:, None], cache)
            codes.append(choose(self.classifier_mlp.linear(states_M1W[:, 0]), depth))
            summed_MC = summed_MC + embed(codes[-1])
        return torch.stack(codes, dim=1), summed_MC

    @property
    def output_embedding_KW(self) -> Tensor:
        return self.classifier_mlp.linear.weight

    @property
    def output_bias_K(self) -> Tensor:
        return self.classifier_mlp.linear.bias

    def _states(self, slots_MSW: Tensor, cache: DepthCache | None) -> Tensor:
        return self.classifier_mlp.layer_norm(self.head_transformer(slots_MSW, cache))
