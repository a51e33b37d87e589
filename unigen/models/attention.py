# SPDX-License-Identifier: Apache-2.0
"""The one attention that every language model here runs: FlexAttention on CUDA, elsewhere SDPA by row or by document.

Legend: B rows, H query heads, G key-value heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

from unigen.sequence.visibility import DocumentMasks

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask  # imported where it is used: it takes seconds

NAME = "unigen"
"""Value of `attn_implementation` that selects it."""
RECOMPILE_LIMIT = 32


def attend(
    module: nn.Module,
    query_BHQD: Tensor,
    key_BGKD: Tensor,
    value_BGKD: Tensor,
    attention_mask: Tensor | BlockMask | DocumentMasks | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention with a boolean mask (B, 1, Q, K), a BlockMask, masks by document, or none (every row sees every column).

    Returns:
        (B, Q, H, D), as transformers expects it, and no weights.
    """
    if attention_mask is not None and not isinstance(attention_mask, Tensor | DocumentMasks):
        # Under autocast rotary embeddings leave queries and keys in float32; values are what the projections made.
        query_BHQD, key_BGKD = query_BHQD.to(value_BGKD.dtype), key_BGKD.to(value_BGKD.dtype)
        out_BHQD = _compiled_flex_attention()(
            query_BHQD, key_BGKD, value_BGKD, block_mask=attention_mask, scale=scaling, enable_gqa=True
        )
        return out_BHQD.transpose(1, 2), None
    groups = query_BHQD.shape[1] // key_BGKD.shape[1]
    if groups > 1 and not query_BHQD.is_cuda:  # the CPU kernel is several times faster on repeated heads
        key_BGKD, value_BGKD = (x.repeat_interleave(groups, dim=1) for x in (key_BGKD, value_BGKD))
        groups = 1
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling, "enable_gqa": groups > 1}
    if isinstance(attention_mask, DocumentMasks):
        out_BHQD = _attend_by_document(query_BHQD, key_BGKD, value_BGKD, attention_mask, options)
    else:
        out_BHQD = F.scaled_dot_product_attention(query_BHQD, key_BGKD, value_BGKD, attn_mask=attention_mask, **options)
    return out_BHQD.transpose(1, 2), None


@torch.compiler.disable  # the documents of every batch are others: it would be compiled anew for each
def _attend_by_document(
    query_BHQD: Tensor, key_BGQD: Tensor, value_BGQD: Tensor, masks: DocumentMasks, options: dict[str, Any]
) -> Tensor:
    """One call of the kernel a document; padding gives zeros."""
    length = query_BHQD.shape[2]
    rows = []
    for row, documents in enumerate(masks.rows):
        pieces, done = [], 0
        for document in documents:
            place = (slice(row, row + 1), slice(None), slice(document.start, document.stop))
            seen = document.seen_11LL
            pieces.append(
                F.scaled_dot_product_attention(
                    query_BHQD[place],
                    key_BGQD[place],
                    value_BGQD[place],
                    attn_mask=seen,
                    is_causal=seen is None,
                    **options,
                )
            )
            done = document.stop
        pieces.append(value_BGQD.new_zeros(1, query_BHQD.shape[1], length - done, query_BHQD.shape[3]))
        rows.append(torch.cat(pieces, dim=2))
    return torch.cat(rows)


@functools.cache
def _compiled_flex_attention() -> Any:
    """Compiled for the first shape, then with lengths and numbers of rows as symbols (one row apart), each with and without
    gradients: about ten times. Past the compiler's usual limit of eight it would silently run uncompiled."""
    import torch._dynamo
    from torch.nn.attention.flex_attention import flex_attention

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    # Wrapped, so that selective recomputation sees it from an eager layer and keeps what it gave.
    return torch.compile(flex_attention, options={"wrap_inductor_compiled_regions": True})


AttentionInterface.register(NAME, attend)
