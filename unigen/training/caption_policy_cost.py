# SPDX-License-Identifier: Apache-2.0
"""What a global step of the stage grpo_understanding takes at most, from models on the meta device.

Every caption is taken to be as long as it may be.
"""

import math
from typing import Any

import torch

from unigen.config.schema import Config
from unigen.generation.flow import is_guided
from unigen.models.cost import LanguageModelCost, measure_on_meta
from unigen.models.uae_config import latent_side
from unigen.models.uae_cost import decoder_forward_flops
from unigen.training.uae_meta import MetaUae

MARKUP = 32
"""Tokens around a message of a chat, at most."""


def caption_policy_flops(config: Config, uae: MetaUae) -> dict[str, float]:
    """Operations by part: of an image, which is seen, and of the captions of its group, each written, drawn and learnt from.

    A caption is read five times with its question: for its log-probabilities, by the reference if there is one, and three
    times for a pass of training.
    """
    sizes, chosen = uae.sizes, config.grpo.caption
    images = sum(config.training.samples_per_step.values())
    captions = images * config.grpo.group_size
    text, question, written = sizes.llm_config.text_config, question_tokens(uae), chosen.max_new_tokens
    language, length, prompt = LanguageModelCost(text), question + written, written + MARKUP
    reading = language.forward_flops(length**2, length, written * text.vocab_size)
    branches = 2 if is_guided(chosen.guidance_scale) else 1
    return {
        # `generate` of transformers looks at the image of every row anew.
        "vision_tower": (images + captions) * vision_flops(uae),
        "writing": captions * language.reading_flops(question, written, text.vocab_size),
        "language_model": captions * (4 + bool(config.grpo.kl_weight)) * reading,
        "prompt_states": captions * language.forward_flops(prompt**2, prompt, 0),
        "decoder": captions * chosen.draw_steps * branches * decoder_forward_flops(sizes, prompt),
        "image_auto_encoder": captions * decode_image_flops(uae),
    }


def caption_activation_bytes(config: Config, uae: MetaUae) -> int:
    """What the forward pass of a caption holds for its backward pass, without the one layer that is computed again at a time."""
    cost = LanguageModelCost(uae.sizes.llm_config.text_config)
    per_token = cost.activation_bytes_per_token(config.training.precision, config.training.recompute)
    return per_token * (question_tokens(uae) + config.grpo.caption.max_new_tokens)


def question_tokens(uae: MetaUae) -> int:
    """Of what asks for a caption, and of the image. Words have no more tokens than letters."""
    return _image_tokens(uae) + len(uae.sizes.caption_request) + MARKUP


def _image_tokens(uae: MetaUae) -> int:
    """Of an image of the size that is drawn."""
    vision = uae.sizes.llm_config.vision_config
    side = math.ceil(uae.sizes.image_resolution / (vision.patch_size * vision.spatial_merge_size))
    return side**2


def vision_flops(uae: MetaUae) -> float:
    """One image through the vision tower, as if every patch saw all others."""
    vision = uae.sizes.llm_config.vision_config
    patches = _image_tokens(uae) * vision.spatial_merge_size**2
    return 2.0 * uae.vision_parameters * patches + 4.0 * vision.depth * vision.hidden_size * patches**2


def decode_image_flops(uae: MetaUae) -> float:
    vae: Any = uae.vae
    side = latent_side(uae.sizes, uae.sizes.image_resolution)
    latents_1Chw = torch.empty(1, vae.config.latent_channels, side, side, device="meta")
    return measure_on_meta(lambda: vae.decode(latents_1Chw)).flops
