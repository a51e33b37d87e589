# SPDX-License-Identifier: Apache-2.0
"""A miniature of UniFork-0.5B with random weights, in which every part has the share of the work that it has there."""

from __future__ import annotations

import torch
from torch import Tensor

from unigen.bench.figures import Setting
from unigen.bench.models import shipped_config
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import UniForkConfig

_MODEL = "Qwen2.5-0.5B"
_SPREAD = 0.1
"""Standard deviation of weights, large enough for a prompt to change what is drawn."""
_WORDS = 512
"""Vocabulary of a miniature: neither drawing nor the layers ask for more."""
_LAYERS = 4
"""Of a path of a miniature."""
CODEBOOK = 16384


def miniature_fork(*, is_quick: bool = False) -> UniForkConfig:
    """Widths divided by 4 (when quick by 8), 4 layers a path of which 2 are shared, one of the depth transformer's 6.

    The codebook is as much smaller as a path, so that the classifier keeps its share.
    """
    divisor = 8 if is_quick else 4
    llm = shipped_config(_MODEL, _WORDS)
    share = _LAYERS / (divisor * llm.num_hidden_layers)  # of the work of a layer's width, that of a path
    llm.hidden_size //= divisor
    llm.intermediate_size //= divisor
    llm.num_attention_heads, llm.num_key_value_heads = 7, 1
    llm.num_hidden_layers, llm.layer_types = _LAYERS, ["full_attention"] * _LAYERS
    llm.initializer_range = _SPREAD
    width = llm.hidden_size
    return UniForkConfig(
        llm_config=llm,
        num_shared_layers=_LAYERS // 2,
        num_understanding_layers=_LAYERS // 2,
        num_generation_layers=_LAYERS // 2,
        feature_size=1024 // divisor,
        depth_transformer={
            "codebook_size": round(CODEBOOK * share),
            "code_channels": 1024 // divisor,
            "hidden_size": width,
            "width": width,
            "attention_width": 4 * width,
            "num_heads": 8,
            "num_layers": 1,
        },
    )


def random_fork(config: UniForkConfig, setting: Setting) -> tuple[UniFork, Tensor]:
    """A model in float32 and evaluation mode with the codebook (K, C) of its image tokenizer, the same for the same seed."""
    sizes = config.depth_sizes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        codebook_KC = torch.randn(sizes.codebook_size, sizes.code_channels)
        return UniFork(config).eval(), codebook_KC
