# SPDX-License-Identifier: Apache-2.0
"""The language model inside every family: a transformers Qwen2 with an extended vocabulary and our attention.

Legend: R rows, L positions, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers import Cache, Qwen2Config, Qwen2ForCausalLM

from unigen.errors import CheckpointError
from unigen.models import attention
from unigen.models.weights import read_config

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask  # imported where it is used: it takes seconds

    from unigen.sequence.visibility import DocumentMasks

Tie = Literal["keep", True, False]


def language_config(folder: Path, vocab_size: int | None = None, tie: Tie = "keep") -> Qwen2Config:
    """The Qwen2 configuration of a folder (or of its config.json), for another vocabulary and another tie if asked."""
    content = read_config(folder)
    if content.get("model_type") != "qwen2":
        raise CheckpointError(
            f"{folder} holds a language model of type {content.get('model_type')!r}; only 'qwen2' is supported"
        )
    config = Qwen2Config.from_dict(content)
    if vocab_size is not None:
        config.vocab_size = vocab_size
    if tie != "keep":
        config.tie_word_embeddings = tie
    # Qwen's own names for the ends of texts would be ids of another vocabulary in a small tokenizer.
    config.bos_token_id = config.eos_token_id = None
    return use_our_attention(config)


def use_our_attention(config: Qwen2Config) -> Qwen2Config:
    config._attn_implementation = attention.NAME
    return config


def load_language_model(folder: Path, vocab_size: int, tie: Tie = "keep") -> Qwen2ForCausalLM:
    """A pre-trained Qwen2 in float32 whose embeddings are extended to `vocab_size`.

    The rows that the folder already has are kept, also beyond its tokenizer (they initialise the first new tokens);
    further ones are drawn with the mean and covariance of the old, as transformers does.
    """
    try:
        model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention.NAME)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot load the language model {folder}: {str(error).splitlines()[0]}") from error
    model.resize_token_embeddings(vocab_size)
    if tie is False and model.config.tie_word_embeddings:
        model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.detach().clone())
    if tie is True:
        model.lm_head.weight = model.model.embed_tokens.weight
    if tie != "keep":
        model.config.tie_word_embeddings = tie
    return model


def hidden_states(
    model: Qwen2ForCausalLM,
    embeddings_RLD: Tensor,
    positions_RL: Tensor,
    mask: Tensor | BlockMask | DocumentMasks | None,
    cache: Cache | None = None,
    **options: Any,
) -> Tensor:
    """Last hidden states (R, L, D) after the final norm.

    The mask goes to attention as it is (None: every row sees every column), so transformers neither guesses documents from
    positions nor builds a causal mask of its own.
    """
    output = model.model(
        inputs_embeds=embeddings_RLD,
        position_ids=positions_RL,
        attention_mask={"full_attention": mask},
        past_key_values=cache,
        use_cache=False,
        **options,
    )
    return output.last_hidden_state
