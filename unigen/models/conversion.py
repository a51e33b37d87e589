# SPDX-License-Identifier: Apache-2.0
"""Rewriting a UniGen checkpoint from the released format into ours and back, without changing a bit of its weights."""

from pathlib import Path
from typing import Literal

import torch
from transformers import Qwen2Config

from unigen.config.folders import SHIPPED_CONFIGS, find_model, portable_path
from unigen.errors import CheckpointError
from unigen.models.checkpoints import (
    load_tokenizer,
    load_unigen,
    save_released_format,
    save_unigen,
    tokenizer_folder,
)
from unigen.models.language import Tie
from unigen.models.unigen import UniGen, UniGenConfig
from unigen.models.weights import read_config, read_weights
from unigen.sequence.vocabulary import Vocabulary

SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def convert_model(
    source: str | Path,
    output: Path,
    to: Literal["ours", "released"],
    *,
    data_root: str | Path | None = None,
    tie: Tie = "keep",
    language_model: str | None = None,
) -> Path:
    """Write `source` into `output` in the other format (or the same, or an adapter as a whole model) and return `output`.

    Weights keep their bits and their type. The tokenizer comes from the checkpoint or its language model's folder.

    Args:
        source: any name that `find_model` takes.
        language_model: the Qwen2 folder that a released config.json is to name; by default found by its sizes.
    Raises:
        CheckpointError: a source that cannot be read, or an output that holds a model already.
    """
    folder = find_model(source, data_root)
    if (output / "config.json").exists():
        raise CheckpointError(f"{output} holds a model already; remove it or give another folder")
    model = load_unigen(folder, data_root, tie)
    tokenizer = load_tokenizer(tokenizer_folder(folder, data_root))
    Vocabulary.from_tokenizer(tokenizer, model.config.codebook_size)  # adds the task tokens where they are missing
    _keep_dtype(model, folder)
    _name_parts_from(model.config, folder, output, data_root)
    if to == "ours":
        save_unigen(model, tokenizer, output)
    else:
        named = language_model or read_config(folder).get("llm_model_path") or _known_name(model.config.llm_config)
        save_released_format(model, tokenizer, output, str(named))
        tokenizer.save_pretrained(output)
    return output


def _keep_dtype(model: UniGen, folder: Path) -> None:
    """Loading gives float32; a file of one narrower type is written in that type again."""
    if (folder / "adapter_config.json").is_file():
        return
    types = {tensor.dtype for tensor in read_weights(folder).values()}
    if len(types) == 1:
        torch.nn.Module.to(model, types.pop())


def _name_parts_from(config: UniGenConfig, folder: Path, output: Path, data_root: str | Path | None) -> None:
    """Paths are relative to a checkpoint's folder, which is another one now; what is not there keeps its name."""
    for part in ("image_tokenizer", "vision_tower"):
        name = getattr(config, part)
        if name:
            try:
                found = find_model(name, data_root, near=folder)
            except CheckpointError:
                continue
            setattr(config, part, portable_path(found, output, data_root))


def _known_name(config: Qwen2Config) -> str:
    for folder in sorted(SHIPPED_CONFIGS.iterdir()):
        content = read_config(folder) if (folder / "config.json").is_file() else {}
        if all(content.get(size) == getattr(config, size) for size in SIZES):
            return folder.name
    raise CheckpointError(
        f"a released checkpoint names the folder of its language model, and no known one has width {config.hidden_size} and "
        f"{config.num_hidden_layers} layers; give --language-model NAME"
    )
