# SPDX-License-Identifier: Apache-2.0
"""UAE checkpoints: our own safetensors folders, adapters over them, and released parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from huggingface_hub import save_torch_state_dict
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoProcessor

from unigen.config.folders import PARTS_FILE
from unigen.errors import CheckpointError
from unigen.models.adapters import AdapterBase, adapter_base, save_adapter
from unigen.models.checkpoints import ADAPTER_CONFIG
from unigen.models.uae import Uae
from unigen.models.uae_config import UaeConfig
from unigen.models.weights import load_exactly, model_kind, read_config, read_weights

HEAD, EMBEDDING = "llm.lm_head.weight", "llm.model.language_model.embed_tokens.weight"
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
ALWAYS_FLOAT32 = ("vae.", "pooled_embedding")
"""Parts that are small and lose where they are rounded."""


def load_uae(folder: Path, data_root: str | Path | None = None, dtype: torch.dtype = torch.float32) -> Uae:
    """A UAE from our own folder, an adapter over one, or the folder of a released one's `model.yaml`; adapters are worked in.

    Args:
        dtype: of the language model, the projector and the decoder.
    Raises:
        CheckpointError: an unknown kind of folder, or weights that do not fit its configuration.
    """
    if model_kind(folder) != UaeConfig.model_type:
        raise CheckpointError(f"{folder} holds a model of kind {model_kind(folder)!r}, not UAE")
    if (folder / ADAPTER_CONFIG).is_file():
        return _with_adapter(folder, data_root, dtype)
    if not (folder / "config.json").is_file():
        from unigen.models.uae_release import load_released  # which needs this module

        return load_released(folder / PARTS_FILE, data_root, dtype)
    return assemble(UaeConfig.from_dict(read_config(folder)), read_weights(folder), folder, dtype)


def assemble(config: UaeConfig, weights: dict[str, Tensor], source: Path, dtype: torch.dtype) -> Uae:
    """A model of exactly these weights, in evaluation mode; a head that is missing is the embedding.

    Raises:
        CheckpointError: they do not fit the configuration.
    """
    is_tied = config.llm_config.tie_word_embeddings
    if is_tied or HEAD not in weights:
        weights[HEAD] = weights.get(EMBEDDING, torch.empty(0))
    with init_empty_weights(include_buffers=False):
        model = Uae(config)
    for name, parameter in model.named_parameters():
        if not name.startswith(ALWAYS_FLOAT32):
            parameter.data = parameter.data.to(dtype)
    load_exactly(model, weights, source)
    if is_tied:
        model.llm.lm_head.weight = model.llm.model.language_model.embed_tokens.weight
    return model.eval()


def load_processor(folder: Path) -> Any:
    """Tokenizer, chat template and image processor of a Qwen2.5-VL.

    Raises:
        CheckpointError: there are none.
    """
    if not any((folder / file).is_file() for file in PROCESSOR_FILES):
        raise CheckpointError(
            f"no image processor in {folder} ({' or '.join(PROCESSOR_FILES)}); fetch the whole folder"
        )
    return AutoProcessor.from_pretrained(folder)


def save_uae(model: Uae, processor: Any, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    """Write a folder that `load_uae` reads: config.json, safetensors, processor, model card."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(model.state_dict() if state is None else state)
    if model.config.llm_config.tie_word_embeddings:
        weights.pop(HEAD, None)
    save_torch_state_dict(weights, folder, filename_pattern="model{suffix}.safetensors")
    model.config.to_json_file(folder / "config.json", use_diff=False)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(uae_card(model.config), encoding="utf-8")


def save_uae_adapter(
    model: PeftModel,
    processor: Any,
    folder: Path,
    base: AdapterBase,
    data_root: str | Path | None = None,
    state: dict[str, Tensor] | None = None,
) -> None:
    """Write an adapter of a UAE alone, with the place and the hash of what it changes."""
    save_adapter(model, processor, folder, base, data_root, state, uae_card)


def uae_card(config: UaeConfig) -> str:
    text, sizes = config.llm_config.text_config, config.decoder_config or {}
    return f"""---
library_name: unigen
tags: [unified-multimodal, text-to-image, image-to-text]
---

# UAE checkpoint

A {text.num_hidden_layers}-layer Qwen2.5-VL of width {text.hidden_size} reads; an SD3 transformer of {sizes.get("num_layers")}
layers draws images of {config.image_resolution} px from the states of its tokens.

    unigen sample --model . --prompt "..." --output images
    unigen ask --model . --image picture.png --caption
    unigen reconstruct --model . --image picture.png --output images
"""


def _with_adapter(folder: Path, data_root: str | Path | None, dtype: torch.dtype) -> Uae:
    base = load_uae(adapter_base(folder, data_root).folder, data_root, dtype)
    merged: nn.Module = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    assert isinstance(merged, Uae)
    merged.config = UaeConfig.from_dict(read_config(folder))
    return merged.eval()
