# SPDX-License-Identifier: Apache-2.0
"""Building the stages of single images, `tokenizer` and `vision`: which folders to load, which weights to draw."""

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, SiglipConfig, SiglipModel, SiglipTextConfig

from unigen.config.folders import WEIGHT_FILES, find_config, find_model, find_tokenizer
from unigen.config.schema import Config
from unigen.errors import ConfigError
from unigen.models.checkpoints import load_tokenizer
from unigen.models.image_tokenizers.registry import AnyTokenizer, build_image_tokenizer, load_image_tokenizer
from unigen.models.image_tokenizers.rqvae_siglip import RqVaeSiglip
from unigen.models.vision import VisionTower
from unigen.models.weights import load_exactly, read_config
from unigen.training.stages.contrast import LOGIT_BIAS, LOGIT_SCALE, CaptionContrast, CaptionWords
from unigen.training.stages.stage import Stage
from unigen.training.stages.tokenizer import TokenizerStage
from unigen.training.stages.vision import VisionStage


def build_tokenizer_stage(config: Config, device: torch.device) -> Stage:
    """The stage `tokenizer`.

    Raises:
        CheckpointError, ConfigError: a folder that is missing or does not fit.
    """
    root, name = config.data.root, config.model.image_tokenizer
    if config.model.initialization == "random":
        model = build_image_tokenizer(find_config(name, root), "cpu")
        _take_encoder(model, config)
    else:
        model = load_image_tokenizer(find_model(name, root), trainable=True)
    if config.tokenizer_stage.enable_code_restart:
        require_features(model, config)
    return TokenizerStage(config, model, *_contrast(model, config))


def build_vision_stage(config: Config, device: torch.device) -> Stage:
    """The stage `vision`.

    Raises:
        CheckpointError, ConfigError: a folder that is missing or does not fit.
    """
    siglip, tokenizer = _siglip(config, draws=config.model.initialization == "random")
    return VisionStage(config, siglip, tokenizer)


def _take_encoder(model: AnyTokenizer, config: Config) -> None:
    """New weights of features start from a vision tower, if the configuration names one that has weights."""
    if config.model.vision_tower is None:
        return
    folder = find_config(config.model.vision_tower, config.data.root)
    if not isinstance(model, RqVaeSiglip):
        raise ConfigError(
            f"model.vision_tower is {config.model.vision_tower}, but {config.model.image_tokenizer} has no SigLIP to start from "
            "it; drop it"
        )
    if _has_weights(folder):
        tower = VisionTower.load(folder)
        load_exactly(model.siglip_model["vision_model"], tower.encoder.state_dict(), folder)


def _contrast(model: AnyTokenizer, config: Config) -> tuple[CaptionContrast | None, CaptionWords | None]:
    """What matches images with captions: a SigLIP's text half, with its weights if its folder has any."""
    if not config.tokenizer_stage.contrastive_weight:
        return None, None
    feature_size = require_features(model, config).feature_size
    assert config.model.vision_tower is not None, "the configuration's check asks for it"
    folder = find_config(config.model.vision_tower, config.data.root)
    siglip, tokenizer = _siglip(config, draws=not _has_weights(folder))
    text_config = siglip.config.text_config
    assert isinstance(text_config, SiglipTextConfig)
    words = CaptionWords(tokenizer, text_config.max_position_embeddings)
    return CaptionContrast(siglip.text_model, feature_size), words


def require_features(model: AnyTokenizer, config: Config) -> RqVaeSiglip:
    """The model, as one whose codes are rows of a codebook of features.

    Raises:
        ConfigError: it is none, and the stage is to do what needs one.
    """
    if isinstance(model, RqVaeSiglip):
        return model
    stage = config.tokenizer_stage
    raise ConfigError(
        f"tokenizer_stage.contrastive_weight is {stage.contrastive_weight} and tokenizer_stage.enable_code_restart is "
        f"{stage.enable_code_restart}, but {config.model.image_tokenizer} has no codebook of features; drop both"
    )


def _siglip(config: Config, *, draws: bool) -> tuple[SiglipModel, PreTrainedTokenizerBase]:
    """The SigLIP that `model.vision_tower` names, with drawn weights or its own, and what makes words of captions."""
    root, name = config.data.root, config.model.vision_tower
    if name is None:
        raise ConfigError(f"stage {config.stage} trains a SigLIP, but model.vision_tower is null; name its folder")
    folder = find_config(name, root)
    content = read_config(folder)
    if content.get("model_type") != "siglip":
        raise ConfigError(
            f"stage {config.stage} trains models of type siglip, but {folder} is {content.get('model_type')!r}"
        )
    tokenizer = load_tokenizer(find_tokenizer(config.model.text_tokenizer or folder, root))
    if not draws:
        return SiglipModel.from_pretrained(folder, dtype=torch.float32), tokenizer
    words = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    siglip = SiglipConfig.from_dict({**content, "text_config": {**content.get("text_config", {}), **words}})
    model = SiglipModel(siglip)
    nn.init.constant_(model.logit_scale, LOGIT_SCALE)
    nn.init.constant_(model.logit_bias, LOGIT_BIAS)
    return model, tokenizer


def _has_weights(folder: Path) -> bool:
    return any((folder / file).is_file() for file in WEIGHT_FILES)
