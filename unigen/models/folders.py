# SPDX-License-Identifier: Apache-2.0
"""Finding a model's folder from the name that a config or a command gives."""

import os
from pathlib import Path

from unigen.errors import CheckpointError

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED_CONFIGS = REPOSITORY / "configs" / "models"
"""The config.json files that come with the project, by model name."""


def find_model(name: str | Path, data_root: str | Path | None = None, near: Path | None = None) -> Path:
    """The folder that `name` means: as given, next to `near`, then under `<data_root>/checkpoints`.

    Each of them is taken if it holds a config.json or an adapter; else its `unwrapped_model`; else its newest
    `*/unwrapped_model`.

    Raises:
        CheckpointError: listing all that was tried.
    """
    tried: list[Path] = []
    for place in _places(name, data_root, near):
        newest = sorted(place.glob("*/unwrapped_model"), key=_step)[::-1]
        for folder in (place, place / "unwrapped_model", *newest):
            tried.append(folder)
            if _is_model(folder):
                return folder
    raise CheckpointError(f"no model '{name}'; tried {', '.join(str(path) for path in tried)}")


def find_config(name: str | Path, data_root: str | Path | None = None) -> Path:
    """Like `find_model`, but a config.json that comes with the project will do; for random weights and dry runs."""
    shipped = SHIPPED_CONFIGS / Path(name).name
    try:
        return find_model(name, data_root)
    except CheckpointError as error:
        if (shipped / "config.json").is_file():
            return shipped
        raise CheckpointError(f"{error}, {shipped}") from error


def portable_path(target: Path, home: Path) -> str:
    """`target` as a checkpoint in `home` should name it: relative, so that a run's folder can be moved as a whole."""
    return os.path.relpath(target.resolve(), home.resolve())


def _places(name: str | Path, data_root: str | Path | None, near: Path | None) -> list[Path]:
    places = [Path(name)]
    if near is not None:
        places.append(near / name)
    if data_root is not None:
        places += [Path(data_root) / "checkpoints" / name, Path(data_root) / "checkpoints" / Path(name).name]
    return list(dict.fromkeys(places))


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()


def _step(folder: Path) -> tuple[int, float]:
    """Order of checkpoints: by step where the name has one, then by time."""
    digits = folder.parent.name.rpartition("-")[2]
    return (int(digits) if digits.isdigit() else -1, folder.stat().st_mtime)
