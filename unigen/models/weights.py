# SPDX-License-Identifier: Apache-2.0
"""Reading a model folder without trusting it: its config.json, its weight files, and an exact load into a module."""

import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from unigen.config.folders import PARTS_FILE, WEIGHT_FILES
from unigen.errors import CheckpointError

NUM_NAMES_SHOWN = 3
_SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")


def read_config(path: Path) -> dict[str, Any]:
    """The content of a config.json, given the file or the folder that holds it.

    Raises:
        CheckpointError: the file is absent or is not a JSON object.
    """
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"no config.json at {file}: give the folder of a model")
    return _read_json(file)


def model_kind(folder: Path) -> str | None:
    """What the model in a folder calls itself; a folder with a `model.yaml` and no config.json is a released UAE.

    Raises:
        CheckpointError: neither is there, or the config.json is no JSON object.
    """
    if (folder / PARTS_FILE).is_file() and not (folder / "config.json").is_file():
        return "uae"
    content = read_config(folder)
    return content.get("model_type") or content.get("_class_name")


def read_weights(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """Name -> tensor (CPU) of all weights in `folder` whose name is `wanted`; shards are followed through their index.

    Pickled files are read with `weights_only=True`, so they cannot run code.

    Raises:
        CheckpointError: no weight file is there, a shard is missing, or a file cannot be read.
    """
    weights: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        if not file.is_file():
            raise CheckpointError(f"{folder} is incomplete: its index names {file.name}, which is not there")
        try:
            weights.update(_read_file(file, wanted))
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise CheckpointError(f"cannot read {file}: {error}; fetch the file again") from error
    return weights


def load_exactly(module: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Put `weights` into `module`, keeping the module's dtypes; parameters on the meta device become real.

    Raises:
        CheckpointError: a name is missing, unexpected or of another shape; the first few are named.
    """
    expected = module.state_dict()
    complaints = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in weights and weights[name].shape != tensor.shape
        ],
    }
    found = [f"{len(names)} {kind} ({_first(names)})" for kind, names in complaints.items() if names]
    if found:
        raise CheckpointError(f"the weights in {source} do not fit {type(module).__name__}: {'; '.join(found)}")
    module.load_state_dict({name: weights[name].to(expected[name].dtype) for name in expected}, assign=True)


def _first(names: list[str]) -> str:
    return ", ".join(names[:NUM_NAMES_SHOWN]) + (", ..." if len(names) > NUM_NAMES_SHOWN else "")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not a JSON object")
    return content


def _weight_files(folder: Path) -> list[Path]:
    for name in WEIGHT_FILES:
        file = folder / name
        if file.is_file():
            return _shards(file) if name.endswith(".index.json") else [file]
    return _numbered_shards(folder)


def _numbered_shards(folder: Path) -> list[Path]:
    """Shards whose index is not there: their names say how many there have to be."""
    found = [match for file in sorted(folder.glob("*.safetensors")) if (match := _SHARD.fullmatch(file.name))]
    sets = {(match["name"], match["total"]) for match in found}
    if len(sets) == 1:
        ((name, total),) = sets
        return [folder / f"{name}-{number:05d}-of-{total}.safetensors" for number in range(1, int(total) + 1)]
    raise CheckpointError(f"no weights in {folder}: expected one of {', '.join(WEIGHT_FILES)}")


def _shards(index: Path) -> list[Path]:
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map")
    names = sorted(set(weight_map.values()))
    for name in names:
        # An index comes from outside: it must not lead the reader out of its own folder.
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names the shard {name!r}, which is not a plain file name")
    return [index.parent / name for name in names]


def _read_file(file: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (a safetensors handle is not a mapping)
                if wanted(name):
                    yield name, tensors.get_tensor(name)
        return
    content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not a dictionary of tensors")
    for name, tensor in content.items():
        if isinstance(tensor, Tensor) and wanted(name):
            yield name, tensor
