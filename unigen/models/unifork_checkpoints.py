# SPDX-License-Identifier: Apache-2.0
"""UniFork checkpoints: our own safetensors folders, and the released format with its image tokenizer inside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2Config

from unigen.config.folders import find_config
from unigen.errors import CheckpointError
from unigen.models.image_tokenizers.released_rqvae import own_name, rqvae_sizes, with_one_codebook
from unigen.models.image_tokenizers.rqvae_siglip import RqVaeSiglip, RqVaeSiglipConfig
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import UniForkConfig
from unigen.models.weights import load_exactly, read_config, read_weights

RELEASED_TYPE = "llava_qwen2"
IMAGE_TOKENIZER = "image_tokenizer"
"""Folder inside a checkpoint that the image tokenizer of a released one goes to."""
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_TOWER = "model.vision_tower.vision_tower."
_TOKENIZER = f"{_TOWER}rqvaesiglip."
_DEPTH = f"{_TOWER}rqtransformer."
_RELEASED_RESOLUTION, _RELEASED_LENGTH, _RELEASED_HEADS = 384, 1350, 32


def holds_unifork(folder: Path) -> bool:
    """Whether a folder is a UniFork checkpoint, ours or released."""
    return read_config(folder).get("model_type") in (UniForkConfig.model_type, RELEASED_TYPE)


def load_unifork(folder: Path, data_root: str | Path | None = None) -> UniFork:
    """A UniFork in float32 from our own folder or the released format; it is never drawn anew, the depth transformer neither.

    Raises:
        CheckpointError: an unknown kind of folder, or weights that do not fit its configuration.
    """
    weights = _model_weights(folder)
    config = _config(folder, weights, data_root)
    with init_empty_weights(include_buffers=False):
        model = UniFork(config)
    if model.lm_head is not None:
        weights.setdefault(HEAD, weights[EMBEDDING])
    load_exactly(model, {name: tensor.float() for name, tensor in weights.items()}, folder)
    if model.lm_head is not None and config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.eval()


def read_unifork_config(folder: Path, data_root: str | Path | None = None) -> UniForkConfig:
    """The configuration of a UniFork folder; of a released one from its weights too, which say where the branches part."""
    is_ours = read_config(folder).get("model_type") == UniForkConfig.model_type
    return _config(folder, {} if is_ours else _model_weights(folder), data_root)


def load_inner_image_tokenizer(folder: Path, data_root: str | Path | None = None) -> RqVaeSiglip | None:
    """The image tokenizer that a released checkpoint carries, frozen; None where it carries none.

    It is the one that its connector and depth transformer were trained with, whatever became of its codebook in training.

    Raises:
        CheckpointError: weights that do not fit.
    """
    config = RqVaeSiglipConfig(**rqvae_sizes(_tower_config(read_config(folder), data_root)))
    layers = config.siglip_config.num_hidden_layers

    def is_wanted(name: str) -> bool:
        return name.startswith(_TOKENIZER) and own_name(name.removeprefix(_TOKENIZER), layers)

    weights = {name.removeprefix(_TOKENIZER): tensor for name, tensor in read_weights(folder, is_wanted).items()}
    if not weights:
        return None
    with init_empty_weights(include_buffers=False):
        tokenizer = RqVaeSiglip(config)
    load_exactly(tokenizer, with_one_codebook(weights, folder), folder)
    return tokenizer.eval().requires_grad_(False)


def save_unifork(
    model: UniFork, tokenizer: PreTrainedTokenizerBase, folder: Path, state: dict[str, Tensor] | None = None
) -> None:
    """Write a folder that `load_unifork` and transformers read: config.json, safetensors, text tokenizer, model card."""
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(unifork_card(model.config), encoding="utf-8")


def unifork_card(config: UniForkConfig) -> str:
    branches = " and ".join(f"{config.branch_layers(branch)} for {branch}" for branch in config.branches)
    return f"""---
library_name: unigen
tags: [unified-multimodal, text-to-image, image-to-text]
---

# UniFork checkpoint

A Qwen2 of width {config.llm_config.hidden_size} with {config.num_shared_layers} shared layers and {branches}; images of
{config.image_resolution} px are {config.num_image_codes} positions of {config.depth_sizes.depth} codes each.
"""


def _model_weights(folder: Path) -> dict[str, Tensor]:
    return read_weights(folder, lambda name: not name.startswith(_TOKENIZER))


def _config(folder: Path, weights: dict[str, Tensor], data_root: str | Path | None) -> UniForkConfig:
    content = read_config(folder)
    kind = content.get("model_type")
    if kind == UniForkConfig.model_type:
        return UniForkConfig.from_dict(content)
    if kind != RELEASED_TYPE:
        raise CheckpointError(f"{folder} holds a model of kind {kind!r}, not UniFork")
    return _released_config(content, weights, folder, data_root)


def _released_config(
    content: dict[str, Any], weights: dict[str, Tensor], folder: Path, data_root: str | Path | None
) -> UniForkConfig:
    """The language model from the config.json; where the branches part, the depth transformer and the connector from shapes."""
    branch = 1 + max((int(found[1]) for found in map(_FORK_LAYER.match, weights) if found), default=-1)
    tower = _tower_config(content, data_root)
    try:
        depth = _depth_sizes(weights, tower)
        feature_size = weights["model.mm_projector.linear1.weight"].shape[1]
        llm = Qwen2Config.from_dict({**content, "model_type": "qwen2", "vocab_size": weights[EMBEDDING].shape[0]})
    except KeyError as error:
        raise CheckpointError(f"{folder} has no weight {error}, which a released UniFork has") from error
    patch = RqVaeSiglipConfig(**rqvae_sizes(tower)).siglip_config.patch_size
    resolution = content.get("image_resolution", _RELEASED_RESOLUTION)
    positions = (resolution // patch) ** 2
    return UniForkConfig(
        llm_config=llm,
        num_shared_layers=llm.num_hidden_layers - branch,
        num_understanding_layers=branch,
        num_generation_layers=branch,
        depth_transformer=depth,
        feature_size=feature_size,
        num_image_codes=positions,
        image_resolution=resolution,
        max_text_tokens=content.get("tokenizer_model_max_length", _RELEASED_LENGTH) - positions - 2,
        image_tokenizer=IMAGE_TOKENIZER,
        tie_word_embeddings=HEAD not in weights or torch.equal(weights[HEAD], weights[EMBEDDING]),
    )


_FORK_LAYER = re.compile(r"model\.gen_fork_layers\.(\d+)\.")
_DEPTH_LAYER = re.compile(re.escape(_DEPTH) + r"head_transformer\.blocks\.(\d+)\.")


def _depth_sizes(weights: dict[str, Tensor], tower: dict[str, Any]) -> dict[str, Any]:
    """Sizes of the depth transformer; only its number of heads is in no shape."""
    shapes = {name.removeprefix(_DEPTH): tensor.shape for name, tensor in weights.items() if name.startswith(_DEPTH)}
    head = tower.get("rqtransformer", {}).get("head", {})
    return {
        "depth": shapes["pos_emb_d"][1],
        "codebook_size": shapes["classifier_mlp.linear.bias"][0],
        "code_channels": shapes["in_mlp_1.weight"][1],
        "hidden_size": shapes["in_mlp_2.weight"][1],
        "width": shapes["in_mlp_2.weight"][0],
        "attention_width": shapes["head_transformer.blocks.0.attn.key.weight"][0],
        "num_heads": head.get("block", {}).get("n_head", _RELEASED_HEADS),
        "num_layers": len({found[1] for found in map(_DEPTH_LAYER.match, weights) if found}),
    }


def _tower_config(content: dict[str, Any], data_root: str | Path | None) -> dict[str, Any]:
    """The config.json of the tower that a released config.json names; {}, so the released sizes, where it is not here."""
    name = content.get("mm_vision_tower")
    try:
        return read_config(find_config(name, data_root)) if name else {}
    except CheckpointError:
        return {}
