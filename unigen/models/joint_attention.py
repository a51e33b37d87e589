# SPDX-License-Identifier: Apache-2.0
"""Attention of Stable Diffusion 3 over image and text together, with a mask over the text, which diffusers' has not.

Legend: B samples, N image tokens, T text tokens, S both, D width, H heads, C size of a head.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class MaskedJointAttention:
    """An attention processor of diffusers; without a mask it computes what diffusers' own does."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        is_visible_BT: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """
        Args:
            attn: diffusers' Attention, whose layers are used.
            hidden_states: of the image (B, N, D).
            encoder_hidden_states: of the text (B, T, D); None for attention within the image.
            attention_mask: diffusers' own argument, which nothing gives.
            is_visible_BT: which of the text nobody looks away from; its padding is hidden from image and text alike.
        """
        query, key, value = _heads(attn, hidden_states, "to_q", "to_k", "to_v", "norm_q", "norm_k")
        mask = None
        if encoder_hidden_states is not None:
            names = ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k")
            of_text = _heads(attn, encoder_hidden_states, *names)
            query, key, value = (torch.cat(pair, dim=2) for pair in zip((query, key, value), of_text, strict=True))
            if is_visible_BT is not None:
                mask = F.pad(is_visible_BT, (hidden_states.shape[1], 0), value=True)[:, None, None]
        found_BHSC = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        found_BSD = found_BHSC.transpose(1, 2).flatten(2)
        num_image = hidden_states.shape[1]
        image_BND = attn.to_out[1](attn.to_out[0](found_BSD[:, :num_image]))
        if encoder_hidden_states is None:
            return image_BND
        text_BTD = found_BSD[:, num_image:]
        return image_BND, text_BTD if attn.context_pre_only else attn.to_add_out(text_BTD)


def _heads(attn: Any, states: Tensor, q: str, k: str, v: str, norm_q: str, norm_k: str) -> tuple[Tensor, ...]:
    """Queries, keys and values (B, H, tokens, C) from the layers of these names."""
    found = [getattr(attn, name)(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for name in (q, k, v)]
    for place, name in enumerate((norm_q, norm_k)):
        norm = getattr(attn, name)
        if norm is not None:
            found[place] = norm(found[place])
    return tuple(found)
