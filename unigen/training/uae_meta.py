# SPDX-License-Identifier: Apache-2.0
"""A UAE on the meta device: its sizes without weights, for all of its stages."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from unigen.config.folders import find_config, find_model
from unigen.config.schema import Config
from unigen.errors import CheckpointError
from unigen.models.cost import count_parameters
from unigen.models.precision import round_frozen
from unigen.models.uae import Uae, load_diffusers
from unigen.models.uae_config import UaeConfig
from unigen.models.weights import read_config
from unigen.training.stages.uae_registry import STAGES, adapted, describe_uae, named_parts, random_sizes


@dataclass
class MetaUae:
    """The parts, on the meta device."""

    sizes: UaeConfig
    model: nn.Module | None
    """With the adapter that is trained, if one is, and without the image auto-encoder; None where that alone is trained."""
    vae: nn.Module
    vision_parameters: int
    """Of the vision tower, which is a part of the language model."""
    parameters: dict[str, int]
    """Of each part; `adapters` are what LoRA adds."""
    notes: list[str] = field(default_factory=list)
    """What was taken for folders that are not there."""


def uae_on_meta(config: Config) -> MetaUae:
    """The model of a configuration, with what its stage trains.

    Raises:
        CheckpointError, ConfigError: sizes that nothing on this machine says, or that do not fit together.
    """
    notes: list[str] = []
    sizes = _sizes(config, notes)
    describe_uae(sizes, config)
    if config.stage == "tokenizer":
        with torch.device("meta"):
            vae = load_diffusers().AutoencoderKL.from_config(sizes.vae_config)
        return MetaUae(sizes, None, vae, 0, {"image_auto_encoder": count_parameters(vae)}, notes)
    with torch.device("meta"):
        model = Uae(sizes).float()  # as it is loaded for training, whatever its files say
    vae = model.hold_vae_apart()
    parts = {"language_model": model.llm, "projector": model.projector, "decoder": model.decoder}
    parameters = {name: count_parameters(part) for name, part in parts.items()}
    parameters["image_auto_encoder"] = count_parameters(vae)
    seen = count_parameters(model.llm.model.visual)
    trained = _as_trained(model, config, parameters)
    if STAGES[config.stage].rounds_frozen(config):
        round_frozen(trained)
    return MetaUae(sizes, trained, vae, seen, parameters, notes)


def _as_trained(model: Uae, config: Config, parameters: dict[str, int]) -> nn.Module:
    kind = STAGES[config.stage]
    if config.training.lora is None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(kind.parts_to_train(config)))
        return model
    plain = count_parameters(model)
    found: Any = adapted(model, config, kind)
    parameters["adapters"] = count_parameters(found) - plain
    assert isinstance(found, nn.Module)
    return found


def _sizes(config: Config, notes: list[str]) -> UaeConfig:
    """From the checkpoint to start from, if it is there; else from the parts that the configuration names."""
    wanted, root = config.model, config.data.root
    if wanted.pretrained:
        try:
            return UaeConfig.from_dict(read_config(find_model(wanted.pretrained, root)))
        except CheckpointError:
            notes.append(f"{wanted.pretrained} is not here; sizes are those of {wanted.language_model} and the rest")
    missing: dict[str, Any] = {}
    for part, name in named_parts(config).items():
        try:
            find_config(name, root)
        except CheckpointError:
            notes.append(f"{name} is not here; sizes are those of {wanted.uae.diffusion}")
            missing[part] = None
    model = replace(wanted, pretrained=None, uae=replace(wanted.uae, **missing))
    return random_sizes(replace(config, model=model))
