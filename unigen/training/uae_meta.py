# SPDX-License-Identifier: Apache-2.0
"""A UAE on the meta device, and what a step of its stages takes at most.

Every text is taken to be as long as `model.max_text_tokens`; an image that is read has the size of those that are drawn.
Legend: C channels, s side of a latent, T tokens, E width that the decoder reads, P width of the pooled embedding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from unigen.config.folders import PARTS_FILE, find_model
from unigen.config.schema import Config
from unigen.errors import CheckpointError, ConfigError
from unigen.generation.flow import is_guided
from unigen.models.cost import LanguageModelCost, MetaPass, count_parameters, measure_on_meta
from unigen.models.measured_vae import KIND, MeasuredVae
from unigen.models.uae import Uae
from unigen.models.uae_config import UaeConfig, diffusers_config, latent_side
from unigen.models.weights import read_config
from unigen.training.stages.uae_registry import adapted, describe_uae, random_sizes, stage_kind
from unigen.training.stages.vae import vae_folder


@dataclass
class MetaUae:
    """What a stage of UAE trains, or its image auto-encoder alone."""

    config: Config
    model: nn.Module
    parameters: dict[str, int]
    notes: list[str]

    @property
    def uae(self) -> Uae:
        found: Any = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        assert isinstance(found, Uae), "the stage tokenizer has no more than an image auto-encoder"
        return found


def uae_on_meta(config: Config) -> MetaUae:
    """The model of a configuration, without weights and without network; frozen but for what the stage trains.

    Raises:
        CheckpointError, ConfigError: sizes that nothing on this machine says, or that do not fit together.
    """
    if config.stage == "tokenizer":
        with torch.device("meta"):
            vae = MeasuredVae(diffusers_config(vae_folder(config, with_weights=False), KIND))
        return MetaUae(config, vae, {"image_auto_encoder": count_parameters(vae)}, [])
    kind, notes = stage_kind(config), list[str]()
    sizes = _sizes(config, notes)
    describe_uae(sizes, config)
    with torch.device("meta"):
        model = Uae(sizes)
    parts = {"language_model": model.llm, "projector": model.projector, "decoder": model.decoder}
    parameters = {name: count_parameters(part) for name, part in (*parts.items(), ("image_auto_encoder", model.vae))}
    if config.training.lora is not None:
        wrapped = adapted(model, config, kind)
        parameters["adapters"] = count_parameters(wrapped) - sum(parameters.values())
        return MetaUae(config, wrapped, parameters, notes)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(kind.parts_to_train(config)))
    return MetaUae(config, model, parameters, notes)


def uae_flops(found: MetaUae) -> dict[str, float]:
    """Operations of one global step by part.

    Raises:
        ConfigError: a stage whose steps are not known here.
    """
    config, samples = found.config, sum(found.config.training.samples_per_step.values())
    if config.stage == "tokenizer":
        return {"image_auto_encoder": 3 * samples * _rebuild(found).flops}
    of_stage = {"sft": _chat_flops, "longcap": _longcap_flops, "coldstart": _coldstart_flops}
    if config.stage not in of_stage:
        raise ConfigError(f"a dry run does not know what a step of stage {config.stage} of model.family=uae takes")
    return {name: samples * flops for name, flops in of_stage[config.stage](found).items()}


def uae_activation_bytes(found: MetaUae, rows: int) -> int:
    """What a forward pass of so many images or chats holds for its backward pass; with layers that are computed again, their
    inputs and one layer."""
    config = found.config
    if config.stage == "tokenizer":
        return _rebuild(found).kept_bytes * rows
    text = found.uae.config.llm_config.text_config
    per_token = LanguageModelCost(text).activation_bytes_per_token(config.training.precision, config.training.recompute)
    if config.stage == "sft":
        return per_token * _chat_tokens(found) * rows
    decoder, passes = _decoder_pass(found), 1
    if config.stage == "coldstart":
        passes = (1 if config.coldstart.checkpoint_steps else config.coldstart.steps) * _branches(config)
    layers = found.uae.decoder.config.num_layers
    kept = decoder.kept_bytes // layers if config.training.recompute == "full" else decoder.kept_bytes
    words = per_token * config.model.max_text_tokens if config.stage == "coldstart" else 0
    pixels = _decode(found).kept_bytes if config.stage == "coldstart" else 0
    return (kept * passes + words + pixels) * rows


def _sizes(config: Config, notes: list[str]) -> UaeConfig:
    """Of the checkpoint to start from, if it is here; else of the parts that the configuration names."""
    wanted, root = config.model, config.data.root
    if wanted.pretrained:
        try:
            folder = find_model(wanted.pretrained, root)
        except CheckpointError:
            notes.append(f"{wanted.pretrained} is not here; sizes are those of {wanted.language_model} and its other parts")
        else:
            if not (folder / PARTS_FILE).is_file():
                return UaeConfig.from_dict(read_config(folder))
    return random_sizes(config)


def _longcap_flops(found: MetaUae) -> dict[str, float]:
    return {
        "language_model": _words_flops(found),
        "projector": 3 * _projector_flops(found),
        "decoder": 3 * _decoder_pass(found).flops,
        "image_auto_encoder": _encode(found).flops,
    }


def _coldstart_flops(found: MetaUae) -> dict[str, float]:
    """Without the network that gives the features, which is small beside the decoder."""
    passes = found.config.coldstart.steps * _branches(found.config)
    return {
        "language_model": 3 * _words_flops(found),
        "projector": 3 * _projector_flops(found),
        "decoder": 3 * passes * _decoder_pass(found).flops,
        "image_auto_encoder": 3 * _decode(found).flops,
    }


def _chat_flops(found: MetaUae) -> dict[str, float]:
    config, tokens = found.uae.config.llm_config, _chat_tokens(found)
    logits = found.config.model.max_text_tokens * config.text_config.vocab_size
    patches = _image_tokens(found) * config.vision_config.spatial_merge_size**2
    seen = 2.0 * count_parameters(found.uae.llm.model.visual) * patches
    words = LanguageModelCost(config.text_config).forward_flops(float(tokens**2), float(tokens), float(logits))
    return {"language_model": 3 * words, "vision_tower": 3 * seen}


def _words_flops(found: MetaUae) -> float:
    tokens = float(found.config.model.max_text_tokens)
    return LanguageModelCost(found.uae.config.llm_config.text_config).forward_flops(tokens**2, tokens, 0.0)


def _projector_flops(found: MetaUae) -> float:
    return 2.0 * found.parameters["projector"] * found.config.model.max_text_tokens


def _chat_tokens(found: MetaUae) -> int:
    return found.config.model.max_text_tokens + _image_tokens(found)


def _image_tokens(found: MetaUae) -> int:
    vision = found.uae.config.llm_config.vision_config
    side = found.config.model.image_resolution // (vision.patch_size * vision.spatial_merge_size)
    return side**2


def _branches(config: Config) -> int:
    return 2 if is_guided(config.coldstart.guidance_scale) else 1


def _side(found: MetaUae) -> int:
    config = found.config
    resolution = config.coldstart.resolution if config.stage == "coldstart" else None
    return latent_side(found.uae.config, resolution or config.model.image_resolution)


def _decoder_pass(found: MetaUae) -> MetaPass:
    decoder = found.uae.decoder
    sizes, side = decoder.config, _side(found)
    return measure_on_meta(
        lambda: decoder(
            hidden_states=_empty(1, sizes.in_channels, side, side),
            encoder_hidden_states=_empty(1, found.config.model.max_text_tokens, sizes.joint_attention_dim),
            pooled_projections=_empty(1, sizes.pooled_projection_dim),
            timestep=_empty(1),
        )
    )


def _encode(found: MetaUae) -> MetaPass:
    side = found.config.model.image_resolution
    return measure_on_meta(lambda: found.uae.vae.encode(_empty(1, 3, side, side)))


def _decode(found: MetaUae) -> MetaPass:
    return measure_on_meta(lambda: found.uae.vae.decode(_empty(1, found.uae.latent_channels, _side(found), _side(found))))


def _rebuild(found: MetaUae) -> MetaPass:
    vae, side = found.model, found.config.model.image_resolution
    assert isinstance(vae, MeasuredVae)
    small = vae.latent_side(side)
    return measure_on_meta(lambda: vae(_empty(1, 3, side, side), _empty(1, vae.latent_channels, small, small)))


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")
