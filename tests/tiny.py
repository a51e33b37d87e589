# SPDX-License-Identifier: Apache-2.0
"""A complete UniGen checkpoint with random weights, small enough to run anywhere in milliseconds."""

from functools import cache
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, SiglipVisionConfig, SiglipVisionModel

from unigen.data.shapes.tokenizer import train_tokenizer
from unigen.models.checkpoints import save_unigen
from unigen.models.image_tokenizers.magvitv2 import MagVitV2, MagVitV2Config
from unigen.models.unigen import UniGen, UniGenConfig
from unigen.sequence.vocabulary import Vocabulary

CODE_BITS = 6
NUM_CODES = 16
RESOLUTION = 32


def tiny_unigen(folder: Path, *, reads_features: bool = False) -> Path:
    """Write a model and, beside it, its image tokenizer and (where it reads features) its vision tower.

    Images have 32 pixels a side and 4 x 4 codes out of 64. The weights are always the same, and large enough for a prompt
    to matter.

    Returns:
        the model's folder.
    """
    tokenizer = _text_tokenizer()
    vocabulary = Vocabulary.from_tokenizer(tokenizer, 2**CODE_BITS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny_image_tokenizer().save_pretrained(folder / "image_tokenizer")
        if reads_features:
            tiny_vision_model().save_pretrained(folder / "vision_tower")
        model = UniGen(_config(vocabulary, reads_features))
    save_unigen(model, tokenizer, folder / "unigen")
    return folder / "unigen"


def tiny_image_tokenizer() -> MagVitV2:
    """An untrained image tokenizer: 32 pixels to 4 x 4 codes of 6 bits."""
    one_each = [1, 1, 1, 1]
    sizes = MagVitV2Config(
        base_channels=8,
        encoder_channel_multipliers=one_each,
        decoder_channel_multipliers=one_each,
        encoder_res_blocks=one_each,
        decoder_res_blocks=one_each,
        latent_channels=CODE_BITS,
        norm_groups=4,
        resolution=RESOLUTION,
    )
    return MagVitV2(sizes)


def tiny_vision_model() -> SiglipVisionModel:
    """An untrained vision encoder: 32 pixels to 16 features of width 16."""
    return SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=RESOLUTION,
            patch_size=8,
        )
    )


def _config(vocabulary: Vocabulary, reads_features: bool) -> UniGenConfig:
    language = Qwen2Config(
        vocab_size=vocabulary.size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    return UniGenConfig(
        llm_config=language,
        code_offset=vocabulary.code_offset,
        codebook_size=vocabulary.codebook_size,
        num_image_codes=NUM_CODES,
        image_resolution=RESOLUTION,
        max_text_tokens=128,
        feature_size=16 if reads_features else 0,
        image_tokenizer="../image_tokenizer",
        vision_tower="../vision_tower" if reads_features else None,
    )


@cache
def _text_tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(400)
