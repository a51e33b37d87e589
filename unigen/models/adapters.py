# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters: a folder with the adapter's weights, which names its base by path and hash."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unigen.config.folders import find_model, portable_path, weights_hash
from unigen.errors import CheckpointError
from unigen.models.checkpoints import load_unigen, model_card
from unigen.models.language import Tie
from unigen.models.unigen import UniGen, UniGenConfig
from unigen.models.weights import read_config

ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE_FILE = "base_model.json"
"""Beside an adapter: which model it changes, and the hash of its weights."""


@dataclass(frozen=True)
class AdapterBase:
    """The model that an adapter changes."""

    folder: Path
    hash: str
    """See `weights_hash`."""


def save_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    base: AdapterBase,
    data_root: str | Path | None = None,
    state: dict[str, Tensor] | None = None,
    card: Callable[[Any], str] = model_card,
) -> None:
    """Write the adapter alone, with the configuration of the whole model, its card, and the name and hash of its base."""
    model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=state)
    model.config.to_json_file(folder / "config.json", use_diff=False)
    tokenizer.save_pretrained(folder)
    content = {"path": portable_path(base.folder, folder, data_root), "hash": base.hash}
    (folder / BASE_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(model.config), encoding="utf-8")


def load_adapter_weights(model: PeftModel, folder: Path) -> None:
    """Put the weights that `save_adapter` wrote into the adapter of a model.

    Raises:
        CheckpointError: they belong to another adapter.
    """
    remedy = "go on with the training.lora that wrote it, or start in a new experiment.output_dir"
    put_adapter_weights(model, load_file(folder / ADAPTER_WEIGHTS), folder / ADAPTER_WEIGHTS, remedy)


def put_adapter_weights(model: PeftModel, weights: dict[str, Tensor], source: Path, remedy: str) -> None:
    """Put all weights of an adapter into a model that has one of the same sizes.

    Raises:
        CheckpointError: they belong to another adapter; what to do is `remedy`.
    """
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    here = {name: tensor.shape for name, tensor in expected.items()}
    if {name: tensor.shape for name, tensor in weights.items()} != here:
        raise CheckpointError(
            f"{source} holds {len(weights)} tensors that are not those of this adapter ({len(here)}); {remedy}"
        )
    set_peft_model_state_dict(model, weights)


def adapter_base(folder: Path, data_root: str | Path | None = None) -> AdapterBase:
    """The model that the adapter in a folder changes.

    Raises:
        CheckpointError: it is missing, or not the one that the adapter was trained on.
    """
    named = read_config(folder / BASE_FILE)
    base = find_model(named["path"], data_root, near=folder)
    found = weights_hash(base)
    if found != named["hash"]:
        raise CheckpointError(
            f"the adapter {folder} was trained on weights with hash {named['hash'][:12]}, but {base} has {found[:12]}"
        )
    return AdapterBase(base, found)


def load_adapter(folder: Path, data_root: str | Path | None = None, tie: Tie = "keep") -> UniGen:
    """A UniGen with the adapter's changes worked into its weights.

    Raises:
        CheckpointError: the base is missing, or not the one that the adapter was trained on.
    """
    unchanged = load_unigen(adapter_base(folder, data_root).folder, data_root, tie)
    config = UniGenConfig.from_dict(read_config(folder))
    if config.feature_size:
        unchanged.add_projector(config.feature_size, config.projector_depth)
    merged = PeftModel.from_pretrained(unchanged, str(folder)).merge_and_unload()
    config.llm_config = merged.config.llm_config
    merged.config = config
    return merged.eval()
