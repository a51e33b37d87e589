# SPDX-License-Identifier: Apache-2.0
"""The models of a configuration on the meta device: sizes without weights, from config.json files alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import SiglipConfig, SiglipModel

from unigen.config.folders import SHIPPED_CONFIGS, find_config, find_model, find_tokenizer
from unigen.config.schema import Config
from unigen.errors import CheckpointError, ConfigError
from unigen.models.checkpoints import load_tokenizer, read_unigen_config
from unigen.models.cost import count_parameters
from unigen.models.discriminator import PatchDiscriminator
from unigen.models.image_tokenizers.registry import AnyTokenizer, build_image_tokenizer
from unigen.models.language import language_config
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import UniForkConfig
from unigen.models.unigen import UniGen, UniGenConfig
from unigen.models.vision import VisionTower
from unigen.models.weights import read_config
from unigen.sequence.vocabulary import TASK_TOKENS, Vocabulary
from unigen.training.optimizer import freeze
from unigen.training.stages.contrast import CaptionContrast
from unigen.training.stages.registry import DRAWING_STAGES, as_trained, describe_model
from unigen.training.stages.tokenizer_registry import require_features
from unigen.training.stages.unifork_registry import describe_unifork, unifork_config

if TYPE_CHECKING:
    from unigen.training.uae_meta import MetaUae

STAND_INS = "dry_run.json"
"""Beside a shipped config.json of a language model: how many entries its text tokenizer has, and the shipped image tokenizer
and vision tower that go with it, for parts of a configuration that are not on this machine yet."""


@dataclass
class MetaModels:
    """The parts of a configuration, on the meta device; `notes` say what was taken for folders that are not there."""

    config: Config
    image_tokenizer: AnyTokenizer | None = None
    vision_tower: VisionTower | None = None
    language_model: UniGen | UniFork | None = None
    siglip: SiglipModel | None = None
    discriminator: PatchDiscriminator | None = None
    contrast: CaptionContrast | None = None
    uae: MetaUae | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    """Of each part; `adapters` are what LoRA adds."""
    notes: list[str] = field(default_factory=list)

    @property
    def trained(self) -> nn.Module:
        """What the stage wraps; names as in training."""
        model: nn.Module | None = {"tokenizer": self.image_tokenizer, "vision": self.siglip}.get(
            self.config.stage, self.language_model
        )
        if self.uae is not None:
            model = self.uae.model or self.uae.vae
        parts = {"model": model, "discriminator": self.discriminator, "contrast": self.contrast}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    @property
    def row_config(self) -> UniGenConfig | UniForkConfig | None:
        """Of the model that rows go through."""
        return None if self.language_model is None else self.language_model.config


def build_on_meta(config: Config) -> MetaModels:
    """All models of a configuration, without weights and without network.

    Raises:
        CheckpointError, ConfigError: sizes that nothing on this machine says, or that do not fit together.
    """
    models = MetaModels(config)
    if config.model.family == "uae":
        from unigen.training.uae_meta import uae_on_meta  # diffusers takes seconds to import

        models.uae = uae_on_meta(config)
        models.parameters, models.notes = dict(models.uae.parameters), list(models.uae.notes)
    elif config.stage == "tokenizer":
        models.image_tokenizer = build_image_tokenizer(find_config(config.model.image_tokenizer, config.data.root))
        with torch.device("meta"):
            models.discriminator = PatchDiscriminator() if config.tokenizer_stage.adversarial_weight else None
        if config.tokenizer_stage.contrastive_weight:
            models.contrast = _contrast(config, models.image_tokenizer)
    elif config.stage == "vision":
        models.siglip = _siglip(config)
    else:
        _add_row_models(models)
    parts = {
        "image_tokenizer": models.image_tokenizer,
        "vision_tower": models.vision_tower or models.siglip,
        "discriminator": models.discriminator,
        "caption_contrast": models.contrast,
    }
    models.parameters |= {name: count_parameters(part) for name, part in parts.items() if part is not None}
    freeze(models.trained, config.training.freeze)
    return models


def _contrast(config: Config, image_tokenizer: AnyTokenizer) -> CaptionContrast:
    siglip, feature_size = _siglip(config), require_features(image_tokenizer, config).feature_size
    with torch.device("meta"):
        return CaptionContrast(siglip.text_model, feature_size)


def _siglip(config: Config) -> SiglipModel:
    name, root = config.model.vision_tower, config.data.root
    if name is None:
        raise ConfigError(f"stage {config.stage} trains a SigLIP, but model.vision_tower is null; name its folder")
    content = read_config(find_config(name, root))
    size = _tokenizer_size(config.model.text_tokenizer, root)
    words = {} if size is None else {"vocab_size": size}
    siglip = SiglipConfig.from_dict({**content, "text_config": {**content.get("text_config", {}), **words}})
    with torch.device("meta"):
        return SiglipModel(siglip)


def _add_row_models(models: MetaModels) -> None:
    wanted, stand_ins = models.config.model, _stand_ins(models.config.model.language_model)
    part = "image_tokenizer" if wanted.family == "unigen" else f"{wanted.family}_image_tokenizer"
    models.image_tokenizer = build_image_tokenizer(_folder(models, wanted.image_tokenizer, stand_ins, part))
    models.image_tokenizer.requires_grad_(False)
    {"unigen": _add_unigen, "unifork": _add_unifork}[wanted.family](models, stand_ins)


def _add_unifork(models: MetaModels, stand_ins: dict[str, object]) -> None:
    config, image_tokenizer = models.config, models.image_tokenizer
    assert image_tokenizer is not None
    words = _tokenizer_size(
        config.model.text_tokenizer or config.model.language_model, config.data.root, extended=False
    )
    try:
        sizes = unifork_config(config, image_tokenizer, words or 0)
    except CheckpointError:
        if config.model.pretrained is None:
            raise
        models.notes.append(f"{config.model.pretrained} is not here; sizes are those of {config.model.language_model}")
        without = replace(config, model=replace(config.model, pretrained=None))
        sizes = unifork_config(without, image_tokenizer, words or 0)
    describe_unifork(sizes, config, image_tokenizer)
    with torch.device("meta"):
        model = UniFork(sizes)
    heads = {"connector": count_parameters(model.model.mm_projector)}
    if sizes.has("generation"):
        heads["depth_transformer"] = count_parameters(model.depth_transformer)
    models.parameters |= {"language_model": count_parameters(model) - sum(heads.values()), **heads}
    models.language_model = model


def _add_unigen(models: MetaModels, stand_ins: dict[str, object]) -> None:
    wanted, config = models.config.model, models.config
    assert models.image_tokenizer is not None
    tower = None
    if wanted.vision_tower:
        tower = VisionTower.from_config(_folder(models, wanted.vision_tower, stand_ins, "vision_tower"), "meta")
    models.vision_tower = tower if config.stage not in DRAWING_STAGES else None
    unigen = _unigen_config(models, stand_ins)
    describe_model(unigen, config, unigen.code_offset, models.image_tokenizer)
    with torch.device("meta"):
        model = UniGen(unigen)
        if tower is not None:
            model.add_projector(tower.hidden_size, wanted.projector_depth)
    plain = count_parameters(model)
    models.parameters["language_model"] = count_parameters(model.llm)
    if model.mm_projector is not None:
        models.parameters["projector"] = count_parameters(model.mm_projector)
    if config.stage == "dpo" and config.dpo.reference == "copy":
        models.parameters["reference_model"] = plain
    models.language_model = as_trained(model, config)
    if config.training.lora is not None:
        models.parameters["adapters"] = count_parameters(models.language_model) - plain


def _unigen_config(models: MetaModels, stand_ins: dict[str, object]) -> UniGenConfig:
    """From the checkpoint to start from, if it is there; else from the language model and the size of its vocabulary."""
    config, wanted, root = models.config, models.config.model, models.config.data.root
    if wanted.pretrained:
        try:
            unigen = read_unigen_config(find_model(wanted.pretrained, root), root)
        except CheckpointError:
            models.notes.append(f"{wanted.pretrained} is not here; sizes are those of {wanted.language_model}")
        else:
            if wanted.tie_word_embeddings != "keep":
                unigen.llm_config.tie_word_embeddings = wanted.tie_word_embeddings
            return unigen
    assert models.image_tokenizer is not None
    llm_config = language_config(find_config(wanted.language_model, root), tie=wanted.tie_word_embeddings)
    code_offset = _text_ids(config, stand_ins, llm_config.vocab_size)
    llm_config.vocab_size = code_offset + models.image_tokenizer.codebook_size + 1
    return UniGenConfig(llm_config=llm_config, code_offset=code_offset)


def _text_ids(config: Config, stand_ins: dict[str, object], vocab_size: int) -> int:
    """Text and task tokens: of the text tokenizer if it is here, else of the shipped numbers, else of the config.json."""
    found = _tokenizer_size(config.model.text_tokenizer or config.model.language_model, config.data.root, extended=True)
    if found is not None:
        return found
    known = stand_ins.get("num_text_tokens")
    return (known if isinstance(known, int) else vocab_size) + len(TASK_TOKENS)


def _tokenizer_size(name: str | None, root: str, *, extended: bool = False) -> int | None:
    """Entries of a text tokenizer, with the task tokens if `extended`; None where it is not on this machine."""
    if name is None:
        return None
    try:
        tokenizer = load_tokenizer(find_tokenizer(name, root))
    except CheckpointError:
        return None
    return Vocabulary.from_tokenizer(tokenizer, 1).code_offset if extended else len(tokenizer)


def _stand_ins(language_model: str) -> dict[str, object]:
    file = SHIPPED_CONFIGS / Path(language_model).name / STAND_INS
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _folder(models: MetaModels, name: str, stand_ins: dict[str, object], part: str) -> Path:
    try:
        return find_config(name, models.config.data.root)
    except CheckpointError:
        if part not in stand_ins:
            raise
        models.notes.append(f"{name} is not here; sizes are those of {stand_ins[part]}")
        return SHIPPED_CONFIGS / str(stand_ins[part])
