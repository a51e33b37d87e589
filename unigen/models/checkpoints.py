# SPDX-License-Identifier: Apache-2.0
"""UniGen checkpoints: our own safetensors folders, the released format, and adapters over either."""

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from unigen.config.folders import TOKENIZER_FILES, find_config, find_tokenizer
from unigen.errors import CheckpointError
from unigen.models.language import Tie, language_config
from unigen.models.unigen import UniGen, UniGenConfig
from unigen.models.weights import load_exactly, read_config, read_weights

BEYOND_RELEASED = ("image_resolution", "max_text_tokens", "task_token_first", "image_tokenizer")
"""What a released config.json leaves to the configuration of each run."""
ADAPTER_CONFIG = "adapter_config.json"
HEAD = "llm.lm_head.weight"
EMBEDDING = "llm.model.embed_tokens.weight"


def load_unigen(folder: Path, data_root: str | Path | None = None, tie: Tie = "keep") -> UniGen:
    """A UniGen in float32 from our own folder, the released format, or an adapter over one of them.

    With `keep`, embeddings that are tied in the file stay tied and two different ones stay two.

    Raises:
        CheckpointError: an unknown kind of folder, or weights that do not fit its configuration.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        from unigen.models.adapters import load_adapter  # which needs peft, and this module

        return load_adapter(folder, data_root, tie)
    weights = {name: tensor.float() for name, tensor in read_weights(folder).items()}
    config = read_unigen_config(folder, data_root)
    if read_config(folder).get("model_type") == UniGenConfig.model_type:
        is_tied = config.llm_config.tie_word_embeddings
    else:  # a released config.json does not say: its weights do
        is_tied = HEAD not in weights or torch.equal(weights[HEAD], weights[EMBEDDING])
    weights.setdefault(HEAD, weights[EMBEDDING])
    return _assemble(config, weights, folder, is_tied if tie == "keep" else tie)


def read_unigen_config(folder: Path, data_root: str | Path | None = None) -> UniGenConfig:
    """The configuration of a UniGen folder of either format."""
    content = read_config(folder)
    if content.get("model_type") == UniGenConfig.model_type:
        return UniGenConfig.from_dict(content)
    if content.get("_class_name") == "UniGen":
        return _released_config(content, folder, data_root)
    kind = content.get("model_type") or content.get("_class_name")
    raise CheckpointError(f"{folder} holds a model of kind {kind!r}, not UniGen")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The text tokenizer of a folder.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise CheckpointError(f"no text tokenizer in {folder} (tokenizer.json or vocab.json); fetch the whole folder")
    return AutoTokenizer.from_pretrained(folder)


def tokenizer_folder(folder: Path, data_root: str | Path | None = None) -> Path:
    """Where the text tokenizer of a checkpoint is to be: beside its weights, or where there is none (released checkpoints
    come without) with the language model that its config.json names.

    Raises:
        CheckpointError: that language model's tokenizer is not there.
    """
    has_own = any((folder / file).is_file() for file in TOKENIZER_FILES)
    named = None if has_own else read_config(folder).get("llm_model_path")
    return find_tokenizer(named, data_root) if named else folder


def save_unigen(
    model: UniGen, tokenizer: PreTrainedTokenizerBase, folder: Path, state: dict[str, Tensor] | None = None
) -> None:
    """Write a folder that `load_unigen` and transformers read: config.json, safetensors, tokenizer, model card."""
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(model_card(model.config), encoding="utf-8")


def save_released_format(model: UniGen, tokenizer: PreTrainedTokenizerBase, folder: Path, language_model: str) -> None:
    """Write `config.json` and `pytorch_model.bin` as the released code reads them.

    Keys that it does not know (it leaves them alone) keep what our own format says besides.

    Args:
        language_model: name of the Qwen2 folder whose sizes the released code builds the model with.
    """
    config: UniGenConfig = model.config
    content = {
        "_class_name": "UniGen",
        "w_und_encoder": bool(config.feature_size),
        "vocab_size": config.llm_config.vocab_size,
        "llm_vocab_size": tokenizer.vocab_size,
        "llm_model_path": language_model,
        "codebook_size": config.codebook_size,
        "num_vq_tokens": config.num_image_codes,
        "load_from_pretrained": True,
        "mm_input_dim": config.feature_size or 1024,
        "und_proj_depth": config.projector_depth,
        "hidden_size": config.llm_config.hidden_size,
        "mask_token_id": config.mask_token_id,
        "vision_tower_name": config.vision_tower,
        **{name: getattr(config, name) for name in BEYOND_RELEASED},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def _assemble(config: UniGenConfig, weights: dict[str, Tensor], folder: Path, tie: bool) -> UniGen:
    config.llm_config.tie_word_embeddings = tie
    inside = sorted(name for name in weights if name.startswith("vision_tower."))
    if inside:
        raise CheckpointError(
            f"{folder} carries its own vision tower ({inside[0]}, ...); save that tower as a SigLIP folder of its own first"
        )
    with init_empty_weights(include_buffers=False):
        model = UniGen(config)
    if not tie:
        model.llm.lm_head.weight = nn.Parameter(torch.empty_like(model.llm.model.embed_tokens.weight))
    load_exactly(model, weights, folder)
    if tie:
        model.llm.lm_head.weight = model.llm.model.embed_tokens.weight
    elif model.llm.lm_head.weight.data_ptr() == model.llm.model.embed_tokens.weight.data_ptr():
        model.llm.lm_head.weight = nn.Parameter(model.llm.lm_head.weight.detach().clone())
    return model.eval()


def _released_config(content: dict[str, Any], folder: Path, data_root: str | Path | None) -> UniGenConfig:
    """What the released config.json says, with the language model's own sizes from the folder that it names."""
    reads_features = bool(content.get("w_und_encoder"))
    name = content.get("llm_model_path") or ""
    try:
        llm_config = language_config(find_config(name, data_root), vocab_size=content["vocab_size"])
    except KeyError as error:
        raise CheckpointError(f"{folder / 'config.json'} has no {error}, which a released checkpoint states") from error
    codebook_size = content.get("codebook_size", 8192)
    beyond = {name: content[name] for name in BEYOND_RELEASED if name in content}
    return UniGenConfig(
        llm_config=llm_config,
        code_offset=content["vocab_size"] - codebook_size - 1,
        codebook_size=codebook_size,
        num_image_codes=content.get("num_vq_tokens", 256),
        feature_size=content.get("mm_input_dim", 1024) if reads_features else 0,
        projector_depth=max(2, content.get("und_proj_depth", 2)),
        vision_tower=content.get("vision_tower_name") or ("siglip-so400m-patch14-384" if reads_features else None),
        **{"max_text_tokens": 1344 if reads_features else 128, **beyond},
    )


def model_card(config: UniGenConfig) -> str:
    llm = config.llm_config
    reads = f"vision features ({config.vision_tower})" if config.vision_tower else "image codes"
    return f"""---
library_name: unigen
tags: [unified-multimodal, text-to-image, image-to-text]
---

# UniGen checkpoint

A {llm.num_hidden_layers}-layer Qwen2 of width {llm.hidden_size} that draws images of {config.image_resolution} px as
{config.num_image_codes} codes and reads images through {reads}.

    unigen sample --model . --prompt "..." --output images
    unigen ask --model . --image picture.png --question "..."
"""
