# SPDX-License-Identifier: Apache-2.0
"""Rewriting UniFork checkpoints into our format without changing a bit, and putting two branches together that parted."""

from pathlib import Path

import torch
from torch import nn

from unigen.config.folders import find_model, portable_path
from unigen.errors import CheckpointError
from unigen.models.checkpoints import load_tokenizer
from unigen.models.unifork import UniFork
from unigen.models.unifork_checkpoints import (
    IMAGE_TOKENIZER,
    load_inner_image_tokenizer,
    load_unifork,
    save_unifork,
)
from unigen.models.unifork_config import UniForkConfig
from unigen.models.weights import read_weights

_GENERATION = ("model.gen_fork_layers.", "model.norm_gen.", "model.vision_tower.")


def convert_unifork(
    folder: Path,
    output: Path,
    data_root: str | Path | None = None,
    generation_branch: str | Path | None = None,
) -> Path:
    """Write the checkpoint `folder`, released or ours, into `output` as ours; weights keep their bits and their type.

    The image tokenizer that a released checkpoint carries becomes a folder inside of `output`.

    Args:
        generation_branch: a checkpoint that started from the same one, to take the generation branch and its heads from.
    Raises:
        CheckpointError: a source that cannot be read, two that did not start from the same one, or an output that holds a model.
    """
    if (output / "config.json").exists():
        raise CheckpointError(f"{output} holds a model already; remove it or give another folder")
    model = load_unifork(folder, data_root)
    if generation_branch is not None:
        other = find_model(generation_branch, data_root)
        take_generation_branch(model, load_unifork(other, data_root), f"{folder} and {other}")
    inner = load_inner_image_tokenizer(folder, data_root)
    _keep_dtype(model, folder)
    if inner is not None:
        inner.save_pretrained(output / IMAGE_TOKENIZER)
    else:
        _name_tokenizer_from(model.config, folder, output, data_root)
    save_unifork(model, load_tokenizer(folder), output)
    return output


def take_generation_branch(model: UniFork, other: UniFork, sources: str) -> None:
    """Put the generation branch of `other` into `model`, whose understanding branch stays.

    Raises:
        CheckpointError: the two differ in what both of them share, so that they did not start from the same checkpoint, or only
            one part of them was trained.
    """
    mine, theirs = model.state_dict(), other.state_dict()
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in (mine, theirs)]
    if shapes[0] != shapes[1]:
        differing = sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})
        raise CheckpointError(f"{sources} are models of different sizes, for instance {differing[0]}")
    shared = [name for name in mine if _part_of(name, model.config) == "shared"]
    moved = [name for name in shared if not torch.equal(mine[name], theirs[name])]
    if moved:
        raise CheckpointError(
            f"{sources} did not start from the same checkpoint, or trained more than their branches: {len(moved)} shared weights "
            f"differ, for instance {moved[0]}"
        )
    drawing = {name: tensor for name, tensor in theirs.items() if _part_of(name, model.config) == "generation"}
    model.load_state_dict({**mine, **drawing})


def _part_of(name: str, config: UniForkConfig) -> str:
    if name.startswith(_GENERATION):
        return "generation"
    words = name.split(".")
    is_upper = words[:2] == ["model", "layers"] and int(words[2]) >= config.num_shared_layers
    return "understanding" if is_upper or name == "model.norm.weight" else "shared"


def _keep_dtype(model: UniFork, folder: Path) -> None:
    """Loading gives float32; a file of one narrower type is written in that type again."""
    names = set(model.state_dict())
    types = {tensor.dtype for tensor in read_weights(folder, lambda name: name in names).values()}
    if len(types) == 1:
        nn.Module.to(model, types.pop())


def _name_tokenizer_from(config: UniForkConfig, folder: Path, output: Path, data_root: str | Path | None) -> None:
    """Its path is relative to a checkpoint's folder, which is another one now; one that is not there keeps its name."""
    try:
        found = find_model(config.image_tokenizer, data_root, near=folder)
    except CheckpointError:
        return
    config.image_tokenizer = portable_path(found, output, data_root)
