# SPDX-License-Identifier: Apache-2.0
"""Building the stage that a configuration names: which folders to load, which weights to draw."""

import math

import torch
from accelerate import init_empty_weights
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from transformers import PreTrainedTokenizerBase, SiglipConfig, SiglipModel

from unigen.config.schema import Config
from unigen.errors import CheckpointError, ConfigError
from unigen.models.checkpoints import load_tokenizer, load_unigen
from unigen.models.folders import find_config, find_model
from unigen.models.image_tokenizers.registry import ImageTokenizer, build_image_tokenizer, load_image_tokenizer
from unigen.models.language import language_config, load_language_model
from unigen.models.unigen import UniGen, UniGenConfig
from unigen.models.vision import VisionTower
from unigen.models.weights import read_config
from unigen.sequence.vocabulary import Vocabulary
from unigen.training.stages.pretrain import PretrainStage
from unigen.training.stages.sft import SftStage
from unigen.training.stages.stage import Stage
from unigen.training.stages.tokenizer import TokenizerStage
from unigen.training.stages.vision import VisionStage


def build_stage(config: Config, device: torch.device) -> Stage:
    """The stage with its weights: trained parts on the CPU (accelerate moves them), frozen ones on `device`.

    Raises:
        CheckpointError, ConfigError: a folder that is missing or does not fit.
    """
    torch.manual_seed(config.experiment.seed)
    builders = {"tokenizer": _tokenizer_stage, "vision": _vision_stage, "pretrain": _row_stage, "sft": _row_stage}
    return builders[config.stage](config, device)


def _tokenizer_stage(config: Config, device: torch.device) -> Stage:
    root, name = config.data.root, config.model.image_tokenizer
    if config.model.initialization == "random":
        return TokenizerStage(config, build_image_tokenizer(find_config(name, root), "cpu"))
    return TokenizerStage(config, load_image_tokenizer(find_model(name, root), trainable=True))


def _vision_stage(config: Config, device: torch.device) -> Stage:
    root, name = config.data.root, config.model.vision_tower
    if name is None:
        raise ConfigError("stage vision trains a vision tower, but model.vision_tower is null; name its folder")
    folder = find_config(name, root)
    content = read_config(folder)
    if content.get("model_type") != "siglip":
        raise ConfigError(f"stage vision trains models of type siglip, but {folder} is {content.get('model_type')!r}")
    tokenizer = load_tokenizer(find_model(config.model.text_tokenizer or folder, root))
    if config.model.initialization == "random":
        words = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        siglip = SiglipConfig.from_dict({**content, "text_config": {**content.get("text_config", {}), **words}})
        return VisionStage(config, SiglipModel(siglip), tokenizer)
    return VisionStage(config, SiglipModel.from_pretrained(folder, dtype=torch.float32), tokenizer)


def _row_stage(config: Config, device: torch.device) -> Stage:
    wanted, root = config.model, config.data.root
    image_tokenizer = load_image_tokenizer(find_model(wanted.image_tokenizer, root), device)
    tower = VisionTower.load(find_model(wanted.vision_tower, root), device) if wanted.vision_tower else None
    tokenizer = _text_tokenizer(config)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, image_tokenizer.codebook_size)
    model = _model(config, vocabulary)
    _describe(model.config, config, vocabulary, image_tokenizer)
    if tower is not None:
        model.add_projector(tower.hidden_size, wanted.projector_depth)
        model.config.vision_tower = wanted.vision_tower
    kind = SftStage if tower is not None else PretrainStage
    return kind(config, _with_lora(model, config), tokenizer, image_tokenizer, tower)


def _text_tokenizer(config: Config) -> PreTrainedTokenizerBase:
    wanted, root = config.model, config.data.root
    if wanted.text_tokenizer:
        return load_tokenizer(find_model(wanted.text_tokenizer, root))
    if wanted.pretrained:
        folder = find_model(wanted.pretrained, root)
        if (folder / "tokenizer.json").is_file():
            return load_tokenizer(folder)
    return load_tokenizer(find_model(wanted.language_model, root))


def _model(config: Config, vocabulary: Vocabulary) -> UniGen:
    wanted, root, tie = config.model, config.data.root, config.model.tie_word_embeddings
    if wanted.pretrained:
        model = load_unigen(find_model(wanted.pretrained, root), root, tie)
        if model.config.mask_token_id != vocabulary.mask_id:
            raise CheckpointError(
                f"{wanted.pretrained} was trained with {model.config.code_offset} text ids and {model.config.codebook_size} "
                f"codes, but the tokenizers here have {vocabulary.code_offset} and {vocabulary.codebook_size}"
            )
        return model
    if wanted.initialization == "random":
        llm_config = language_config(find_config(wanted.language_model, root), vocabulary.size, tie)
        return UniGen(UniGenConfig(llm_config=llm_config))
    llm = load_language_model(find_model(wanted.language_model, root), vocabulary.size, tie)
    with init_empty_weights(include_buffers=False):
        model = UniGen(UniGenConfig(llm_config=llm.config))
    model.llm = llm
    return model


def _describe(model: UniGenConfig, config: Config, vocabulary: Vocabulary, image_tokenizer: ImageTokenizer) -> None:
    """Write into the model's configuration what a checkpoint has to say of itself."""
    resolution, factor = config.model.image_resolution, image_tokenizer.downsample_factor
    if resolution % factor:
        raise ConfigError(f"model.image_resolution is {resolution}; the image tokenizer needs a multiple of {factor}")
    model.code_offset, model.codebook_size = vocabulary.code_offset, vocabulary.codebook_size
    model.image_resolution, model.num_image_codes = resolution, (resolution // factor) ** 2
    model.max_text_tokens, model.task_token_first = config.model.max_text_tokens, config.model.task_token_first
    model.image_tokenizer = config.model.image_tokenizer
    assert math.isqrt(model.num_image_codes) ** 2 == model.num_image_codes


def _with_lora(model: UniGen, config: Config) -> UniGen:
    lora = config.training.lora
    if lora is None:
        return model
    adapter = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=["mm_projector"] if model.mm_projector is not None else None,
    )
    return get_peft_model(model, adapter)  # type: ignore[return-value]  # a PeftModel passes all attributes through
