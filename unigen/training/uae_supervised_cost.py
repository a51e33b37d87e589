# SPDX-License-Identifier: Apache-2.0
"""What a sample takes at most in the stages of UAE that learn from data, from models on the meta device.

Every text is taken to be as long as `model.max_text_tokens`, and an image that is read to have the size of those that are drawn.
"""

from typing import Any

import torch
from peft import PeftModel

from unigen.config.schema import Config
from unigen.generation.flow import is_guided
from unigen.models.cost import LanguageModelCost, MetaPass, measure_on_meta
from unigen.models.uae import Uae
from unigen.models.uae_config import latent_side
from unigen.training.uae_meta import MetaUae


def auto_encoder_flops(config: Config, uae: MetaUae) -> dict[str, float]:
    """Of the stage `tokenizer`."""
    return {"image_auto_encoder": 3 * _rebuild(config, uae).flops}


def chat_flops(config: Config, uae: MetaUae) -> dict[str, float]:
    """Of the stage `sft`: a chat about one image, all of whose words are learnt."""
    text, vision = uae.sizes.llm_config.text_config, uae.sizes.llm_config.vision_config
    tokens, words = _chat_tokens(config, uae), config.model.max_text_tokens
    patches = _image_tokens(uae) * vision.spatial_merge_size**2
    return {
        "language_model": 3 * LanguageModelCost(text).forward_flops(tokens**2, tokens, words * text.vocab_size),
        "vision_tower": 3 * 2.0 * uae.vision_parameters * patches,
    }


def longcap_flops(config: Config, uae: MetaUae) -> dict[str, float]:
    """Of the stage `longcap`."""
    return {
        "language_model": _words_flops(config, uae),
        "projector": 3 * _projector_flops(config, uae),
        "decoder": 3 * _decode_once(config, uae).flops,
        "image_auto_encoder": _encode(uae).flops,
    }


def coldstart_flops(config: Config, uae: MetaUae) -> dict[str, float]:
    """Of the stage `coldstart`, without the network that gives the features, which is small beside the decoder."""
    passes = config.coldstart.steps * _branches(config)
    return {
        "language_model": 3 * _words_flops(config, uae),
        "projector": 3 * _projector_flops(config, uae),
        "decoder": 3 * passes * _decode_once(config, uae).flops,
        "image_auto_encoder": 3 * _to_pixels(config, uae).flops,
    }


def supervised_activation_bytes(config: Config, uae: MetaUae) -> int:
    """What the forward pass of a sample holds for its backward pass; of layers that are computed again, one layer."""
    if config.stage == "tokenizer":
        return _rebuild(config, uae).kept_bytes
    cost = LanguageModelCost(uae.sizes.llm_config.text_config)
    per_token = cost.activation_bytes_per_token(config.training.precision, config.training.recompute)
    if config.stage == "sft":
        return per_token * _chat_tokens(config, uae)
    of_decoder = _decode_once(config, uae).kept_bytes
    if config.training.recompute == "full":
        of_decoder //= _decoder(uae).config.num_layers
    if config.stage == "longcap":
        return of_decoder
    steps = 1 if config.coldstart.checkpoint_steps else config.coldstart.steps
    words = per_token * config.model.max_text_tokens
    return of_decoder * steps * _branches(config) + words + _to_pixels(config, uae).kept_bytes


def _words_flops(config: Config, uae: MetaUae) -> float:
    tokens = config.model.max_text_tokens
    return LanguageModelCost(uae.sizes.llm_config.text_config).forward_flops(tokens**2, tokens, 0)


def _projector_flops(config: Config, uae: MetaUae) -> float:
    return 2.0 * uae.parameters["projector"] * config.model.max_text_tokens


def _chat_tokens(config: Config, uae: MetaUae) -> int:
    return config.model.max_text_tokens + _image_tokens(uae)


def _image_tokens(uae: MetaUae) -> int:
    vision = uae.sizes.llm_config.vision_config
    return (uae.sizes.image_resolution // (vision.patch_size * vision.spatial_merge_size)) ** 2


def _branches(config: Config) -> int:
    """Texts that the decoder is led by at once."""
    return 2 if is_guided(config.coldstart.guidance_scale) else 1


def _latent_side(config: Config, uae: MetaUae) -> int:
    resolution = config.coldstart.resolution if config.stage == "coldstart" else None
    return latent_side(uae.sizes, resolution or uae.sizes.image_resolution)


def _decoder(uae: MetaUae) -> Any:
    model: Any = uae.model.get_base_model() if isinstance(uae.model, PeftModel) else uae.model
    assert isinstance(model, Uae)
    return model.decoder


def _decode_once(config: Config, uae: MetaUae) -> MetaPass:
    """One step of one image and one text."""
    decoder, side = _decoder(uae), _latent_side(config, uae)
    sizes = decoder.config
    return measure_on_meta(
        lambda: decoder(
            hidden_states=_empty(1, sizes.in_channels, side, side),
            encoder_hidden_states=_empty(1, config.model.max_text_tokens, sizes.joint_attention_dim),
            pooled_projections=_empty(1, sizes.pooled_projection_dim),
            timestep=_empty(1),
        )
    )


def _encode(uae: MetaUae) -> MetaPass:
    vae: Any = uae.vae
    side = uae.sizes.image_resolution
    return measure_on_meta(lambda: vae.encode(_empty(1, 3, side, side)))


def _to_pixels(config: Config, uae: MetaUae) -> MetaPass:
    vae: Any = uae.vae
    side = _latent_side(config, uae)
    return measure_on_meta(lambda: vae.decode(_empty(1, vae.config.latent_channels, side, side)))


def _rebuild(config: Config, uae: MetaUae) -> MetaPass:
    side = config.model.image_resolution
    return measure_on_meta(lambda: uae.vae(_empty(1, 3, side, side)))


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")
