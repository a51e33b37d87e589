# SPDX-License-Identifier: Apache-2.0
"""Building the stages of UniFork: which folders to load, which weights to draw, where the layers part."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, Qwen2Config

from unigen.config.folders import find_config, find_model
from unigen.config.schema import Config
from unigen.data.preparation import RowPreparer
from unigen.errors import ConfigError
from unigen.models.image_tokenizers.registry import AnyTokenizer, build_image_tokenizer, load_image_tokenizer
from unigen.models.image_tokenizers.rqvae_siglip import RqVaeSiglip
from unigen.models.language import language_config, load_language_model
from unigen.models.unifork import UniFork, fork_language_model
from unigen.models.unifork_checkpoints import load_unifork, read_unifork_config
from unigen.models.unifork_config import UniForkConfig
from unigen.objectives.loss_kernels import find_loss_kernel
from unigen.training.stages.parts import image_positions, require_room, text_tokenizer
from unigen.training.stages.stage import Stage
from unigen.training.stages.unifork import UniForkStage, unifork_preparer


def build_unifork_stage(config: Config, device: torch.device) -> Stage:
    """The stage with its weights: trained parts on the CPU, the frozen image tokenizer on `device`.

    Raises:
        CheckpointError, ConfigError: a folder that is missing or does not fit.
    """
    wanted, root = config.model, config.data.root
    folder = find_model(wanted.image_tokenizer, root)
    image_tokenizer = _with_depths(load_image_tokenizer(folder, device), config)
    tokenizer = text_tokenizer(config)
    model = _model(config, tokenizer, image_tokenizer)
    describe_unifork(model.config, config, image_tokenizer)
    kernel = find_loss_kernel(config.training.loss_kernel, device)
    return UniForkStage(config, model, tokenizer, image_tokenizer, folder, kernel)


def build_unifork_preparer(config: Config) -> RowPreparer:
    """What makes the rows, from configurations and the text tokenizer: no weights are needed."""
    wanted, root = config.model, config.data.root
    image_tokenizer = _with_depths(build_image_tokenizer(find_config(wanted.image_tokenizer, root)), config)
    tokenizer = text_tokenizer(config)
    described = unifork_config(config, image_tokenizer, len(tokenizer))
    describe_unifork(described, config, image_tokenizer)
    return unifork_preparer(config, described, tokenizer)


def unifork_config(config: Config, image_tokenizer: AnyTokenizer, num_text_ids: int = 0) -> UniForkConfig:
    """Sizes of the model that a run starts from: of its checkpoint, else of the language model and `model.fork`.

    Args:
        num_text_ids: entries of the text tokenizer, for a language model with random weights and a smaller vocabulary.
    """
    wanted, root = config.model, config.data.root
    if wanted.pretrained:
        return read_unifork_config(find_model(wanted.pretrained, root), root)
    llm = language_config(find_config(wanted.language_model, root), tie=wanted.tie_word_embeddings)
    if wanted.initialization == "random":
        llm.vocab_size = max(llm.vocab_size, num_text_ids)
    return _forked(config, llm, _with_depths(image_tokenizer, config))


def describe_unifork(model: UniForkConfig, config: Config, image_tokenizer: AnyTokenizer) -> None:
    """Write into the model's configuration what a checkpoint has to say of itself.

    Raises:
        ConfigError: an image tokenizer that does not fit, images that do not split, or rows without room.
    """
    tokenizer = _with_depths(image_tokenizer, config)
    sizes = model.depth_sizes
    fits = {"features": (model.feature_size, tokenizer.feature_size)}
    if model.has("generation"):
        fits["depths"], fits["codes"] = (sizes.depth, tokenizer.depth), (sizes.codebook_size, tokenizer.codebook_size)
    for name, (expected, found) in fits.items():
        if expected != found:
            raise ConfigError(
                f"{config.model.pretrained} was trained with {expected} {name}, but {config.model.image_tokenizer} has {found}"
            )
    model.image_resolution = config.model.image_resolution
    model.num_image_codes = image_positions(config, tokenizer.downsample_factor)
    model.max_text_tokens, model.image_tokenizer = config.model.max_text_tokens, config.model.image_tokenizer
    model.draw_format, model.read_format = config.model.fork.draw_format, config.model.fork.read_format
    require_room(config, model.row_length, model.num_image_codes)


def _forked(config: Config, llm: Qwen2Config, image_tokenizer: RqVaeSiglip) -> UniForkConfig:
    fork, depth = config.model.fork, llm.num_hidden_layers
    shared = depth // 2 if fork.num_shared_layers is None else fork.num_shared_layers
    if not 0 <= shared <= depth:
        raise ConfigError(f"model.fork.num_shared_layers is {shared}; the language model has {depth} layers")

    def own_layers(branch: str, given: int | None) -> int | None:
        if fork.branches not in ("both", branch):
            return None
        return depth - shared if given is None else given

    head = fork.depth_transformer
    return UniForkConfig(
        llm_config=llm,
        num_shared_layers=shared,
        num_understanding_layers=own_layers("understanding", fork.num_understanding_layers),
        num_generation_layers=own_layers("generation", fork.num_generation_layers),
        depth_transformer={
            "depth": image_tokenizer.depth,
            "codebook_size": image_tokenizer.codebook_size,
            "code_channels": image_tokenizer.feature_size,
            "hidden_size": llm.hidden_size,
            "width": llm.hidden_size,
            "attention_width": head.attention_width,
            "num_heads": head.num_heads,
            "num_layers": head.num_layers,
            "dropout": head.dropout,
        },
        feature_size=image_tokenizer.feature_size,
        tie_word_embeddings=llm.tie_word_embeddings,
    )


def _model(config: Config, tokenizer: PreTrainedTokenizerBase, image_tokenizer: RqVaeSiglip) -> UniFork:
    wanted, root = config.model, config.data.root
    if wanted.pretrained:
        return load_unifork(find_model(wanted.pretrained, root), root)
    described = unifork_config(config, image_tokenizer, len(tokenizer))
    if wanted.initialization == "random":
        return UniFork(described)
    folder = find_model(wanted.language_model, root)
    return fork_language_model(
        load_language_model(folder, described.llm_config.vocab_size, wanted.tie_word_embeddings), described
    )


def _with_depths(image_tokenizer: nn.Module, config: Config) -> RqVaeSiglip:
    if not isinstance(image_tokenizer, RqVaeSiglip):
        raise ConfigError(
            f"model.image_tokenizer is {config.model.image_tokenizer}, but model.family=unifork needs one with several codes a "
            "position, such as vila-u-7b-256"
        )
    return image_tokenizer
