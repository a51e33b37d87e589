# SPDX-License-Identifier: Apache-2.0
"""The one attention that every language model here runs: FlexAttention on CUDA, scaled dot product elsewhere.

Legend: B rows, H query heads, G key-value heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask  # imported where it is used: it takes seconds

NAME = "unigen"
"""Value of `attn_implementation` that selects it."""


def attend(
    module: nn.Module,
    query_BHQD: Tensor,
    key_BGKD: Tensor,
    value_BGKD: Tensor,
    attention_mask: Tensor | BlockMask | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention with a boolean mask (B, 1, Q, K), a BlockMask, or none (every row sees every column).

    Returns:
        (B, Q, H, D), as transformers expects it, and no weights.
    """
    if attention_mask is not None and not isinstance(attention_mask, Tensor):
        # Under autocast rotary embeddings leave queries and keys in float32; values are what the projections made.
        query_BHQD, key_BGKD = query_BHQD.to(value_BGKD.dtype), key_BGKD.to(value_BGKD.dtype)
        out_BHQD = _compiled_flex_attention()(
            query_BHQD, key_BGKD, value_BGKD, block_mask=attention_mask, scale=scaling, enable_gqa=True
        )
    else:
        groups = query_BHQD.shape[1] // key_BGKD.shape[1]
        if groups > 1 and not query_BHQD.is_cuda:  # the CPU kernel is several times faster on repeated heads
            key_BGKD, value_BGKD = (x.repeat_interleave(groups, dim=1) for x in (key_BGKD, value_BGKD))
            groups = 1
        out_BHQD = F.scaled_dot_product_attention(
            query_BHQD,
            key_BGKD,
            value_BGKD,
            attn_mask=attention_mask,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=groups > 1,
        )
    return out_BHQD.transpose(1, 2), None


@functools.cache
def _compiled_flex_attention() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


AttentionInterface.register(NAME, attend)
