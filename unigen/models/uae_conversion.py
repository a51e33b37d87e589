# SPDX-License-Identifier: Apache-2.0
"""Rewriting a UAE, released or ours, as our own checkpoints: one whole model, or a base with its adapters over it."""

from pathlib import Path

import torch

from unigen.config.folders import PARTS_FILE, weights_hash
from unigen.errors import CheckpointError
from unigen.models.adapters import AdapterBase, adapter_base
from unigen.models.checkpoints import ADAPTER_CONFIG
from unigen.models.uae_checkpoints import (
    ALWAYS_FLOAT32,
    load_processor,
    load_uae,
    save_uae,
    save_uae_adapter,
)
from unigen.models.uae_release import Release
from unigen.models.weights import read_weights

BASE = "base"
"""Folder below the output that the model without its adapters goes to."""


def convert_uae(folder: Path, output: Path, data_root: str | Path | None = None, *, merge: bool) -> Path:
    """Write the model of `folder` below `output` and return the folder that is the whole of it.

    Merged, or without adapters, that is `output` itself. Else the base goes to `output/base` and each adapter to a folder of its
    own, which names what it changes: `output/llm_lora` the base, `output/dit_lora` the one before.

    Raises:
        CheckpointError: a source that cannot be read or has nothing to convert, or an output that holds a model already.
    """
    if any((place / "config.json").exists() for place in (output, output / BASE)):
        raise CheckpointError(f"{output} holds a model already; remove it or give another folder")
    if (folder / "config.json").is_file():
        return _rewrite(folder, output, data_root, merge)
    release = Release.read(folder / PARTS_FILE, data_root)
    processor = load_processor(release.folders["llm_processor"])
    adapters, dtype = dict(release.adapters()), _stored_dtype(release.folders["llm"], release.decoder)
    if merge or not adapters:
        save_uae(load_uae(folder, data_root, dtype), processor, output)
        return output
    model, place = release.load_base(dtype), output / BASE
    save_uae(model, processor, place)
    for key, adapter in adapters.items():
        adapted = adapter.on(model)
        save_uae_adapter(adapted, processor, output / key, AdapterBase(place, weights_hash(place)))
        adapted.unload()
        place = output / key
    return place


def _rewrite(folder: Path, output: Path, data_root: str | Path | None, merge: bool) -> Path:
    if (folder / ADAPTER_CONFIG).is_file() and not merge:
        raise CheckpointError(
            f"{folder} is an adapter in our own format already; give --merge to work it into its base"
        )
    base = folder
    while (base / ADAPTER_CONFIG).is_file():
        base = adapter_base(base, data_root).folder
    save_uae(load_uae(folder, data_root, _stored_dtype(base)), load_processor(folder), output)
    return output


def _stored_dtype(*folders: Path) -> torch.dtype:
    """The type of all weights there that may be rounded; float32 for several."""
    types = {
        tensor.dtype
        for folder in folders
        for tensor in read_weights(folder, lambda name: not name.startswith(ALWAYS_FLOAT32)).values()
    }
    return types.pop() if len(types) == 1 else torch.float32
