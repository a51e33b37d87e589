# SPDX-License-Identifier: Apache-2.0
"""Models with random weights and made-up vocabularies: what a model costs does not depend on what it has learned."""

from __future__ import annotations

import copy

import torch
from transformers import Qwen2Config

from unigen.bench.figures import Setting
from unigen.config.folders import SHIPPED_CONFIGS
from unigen.models.language import language_config
from unigen.models.unigen import UniGen, UniGenConfig
from unigen.sequence.vocabulary import Vocabulary

FULL_VOCABULARY = 159_867
FULL_CODEBOOK = 8192
NUM_CODES = 256
_MODEL = "Qwen2.5-1.5B-Instruct"
_SPREAD = 0.1
"""Standard deviation of weights, large enough for a prompt to change what is drawn."""


def shipped_config(name: str, vocab_size: int = FULL_VOCABULARY) -> Qwen2Config:
    """A language model's real sizes, from the configurations that come with the project."""
    return language_config(SHIPPED_CONFIGS / name, vocab_size)


def miniature_config(vocab_size: int, *, is_quick: bool = False) -> Qwen2Config:
    """The proportions of 1.5B: width, heads and feed-forward divided by one number (4, when quick 8), 4 layers (2)."""
    config = shipped_config(_MODEL, vocab_size)
    divisor = 8 if is_quick else 4
    config.hidden_size //= divisor
    config.intermediate_size = config.intermediate_size // divisor // 8 * 8
    config.num_attention_heads, config.num_key_value_heads = 6, 1
    config.num_hidden_layers = 2 if is_quick else 4
    config.layer_types = ["full_attention"] * config.num_hidden_layers
    config.initializer_range = _SPREAD
    return config


def proportional_sizes(config: Qwen2Config) -> tuple[int, int]:
    """Vocabulary and codebook for a miniature whose head takes the share of the work that it takes in 1.5B."""
    whole = shipped_config(_MODEL)
    share = config.hidden_size * config.num_hidden_layers / (whole.hidden_size * whole.num_hidden_layers)
    return round(FULL_VOCABULARY * share), round(FULL_CODEBOOK * share)


def made_up_vocabulary(vocab_size: int, codebook_size: int) -> Vocabulary:
    """The layout of a real vocabulary; its marks are the last ids before the codes."""
    offset = vocab_size - codebook_size - 1
    marks = range(offset - 7, offset)
    return Vocabulary(offset, codebook_size, *marks)


def random_model(
    config: Qwen2Config,
    codebook_size: int,
    device: torch.device | str = "cpu",
    *,
    seed: int = 0,
    feature_size: int = 0,
) -> tuple[UniGen, Vocabulary]:
    """A UniGen in float32 and evaluation mode, the same for the same seed and device."""
    vocabulary = made_up_vocabulary(config.vocab_size, codebook_size)
    described = UniGenConfig(
        llm_config=copy.deepcopy(config),
        code_offset=vocabulary.code_offset,
        codebook_size=codebook_size,
        num_image_codes=NUM_CODES,
        feature_size=feature_size,
    )
    with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        return UniGen(described).eval(), vocabulary


def random_text(vocabulary: Vocabulary, length: int, generator: torch.Generator) -> list[int]:
    """Token ids of plain text."""
    return torch.randint(vocabulary.code_offset - 7, (length,), generator=generator).tolist()


def served_model(config: Qwen2Config, codebook_size: int, setting: Setting) -> tuple[UniGen, Vocabulary]:
    """A random model as a pipeline holds it: parameters in bfloat16 on a GPU, buffers as they are."""
    model, vocabulary = random_model(config, codebook_size, setting.device, seed=setting.seed)
    if setting.device.type == "cuda":
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
    return model, vocabulary
