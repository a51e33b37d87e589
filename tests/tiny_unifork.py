# SPDX-License-Identifier: Apache-2.0
"""UniFork with random weights, small enough to run anywhere in milliseconds."""

from typing import Any

import torch
from transformers import Qwen2Config

from unigen.models.unifork import UniFork
from unigen.models.unifork_config import UniForkConfig

SMALL_DEPTH: dict[str, Any] = {
    "depth": 3,
    "codebook_size": 20,
    "code_channels": 6,
    "hidden_size": 16,
    "width": 16,
    "attention_width": 24,
    "num_heads": 2,
    "num_layers": 2,
}


def small_language(**changed: Any) -> Qwen2Config:
    """Four layers; weights large enough for everything to matter."""
    sizes: dict[str, Any] = {
        "vocab_size": 50,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return Qwen2Config(**{**sizes, **changed})


def small_unifork(**fields: Any) -> UniFork:
    """Always the same weights for the same fields; norms are no ones."""
    described = {"depth_transformer": SMALL_DEPTH, "feature_size": 6, "num_image_codes": 16, **fields}
    config = UniForkConfig(llm_config=small_language(), **described)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UniFork(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()
