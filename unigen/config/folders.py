# SPDX-License-Identifier: Apache-2.0
"""Finding a model's folder from the name that a config or a command gives."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from unigen.errors import CheckpointError

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED_CONFIGS = REPOSITORY / "configs" / "models"
"""The config.json files that come with the project, by model name."""


PARTS_FILE = "model.yaml"
"""Names the folders that a released UAE is put together from."""
MODEL_FILES = ("config.json", "adapter_config.json", PARTS_FILE)
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
# In order of preference: a safe format before a pickle, the usual name before the released tokenizer's.
WEIGHT_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
)
OPEN_CLIP_FILE = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
LONG_CLIP_WEIGHTS = ("longclip-L.pt", "longclip-B.pt")


def find_model(
    name: str | Path,
    data_root: str | Path | None = None,
    near: Path | None = None,
    files: Sequence[str] = MODEL_FILES,
) -> Path:
    """The folder that `name` means: seen from the folder `near`, as given, then under `<data_root>/checkpoints`.

    Each of them is taken if it holds one of `files`; else its `unwrapped_model`; else its newest `*/unwrapped_model`.
    The path of a `model.yaml` means its folder.

    Raises:
        CheckpointError: listing all that was tried.
    """
    tried: list[Path] = []
    for place in _places(name, data_root, near):
        # A checkpoint that is still being written, or never was finished, is called `checkpoint-<step>.tmp`.
        whole = [folder for folder in place.glob("*/unwrapped_model") if folder.parent.suffix != ".tmp"]
        newest = sorted(whole, key=_step)[::-1]
        for folder in (place, place / "unwrapped_model", *newest):
            tried.append(folder)
            if any((folder / file).is_file() for file in files):
                return folder
    wanted = "model" if files == MODEL_FILES else f"{' or '.join(files)} of"
    raise CheckpointError(f"no {wanted} '{name}'; tried {', '.join(str(path) for path in tried)}")


def find_tokenizer(name: str | Path, data_root: str | Path | None = None) -> Path:
    """The folder of a text tokenizer, which may be that of a model."""
    return find_model(name, data_root, files=TOKENIZER_FILES)


def find_config(name: str | Path, data_root: str | Path | None = None, files: Sequence[str] = MODEL_FILES) -> Path:
    """Like `find_model`, but what comes with the project will do if it holds one of `files`; for random weights and dry runs."""
    shipped = SHIPPED_CONFIGS / Path(name).name
    try:
        return find_model(name, data_root, files=files)
    except CheckpointError as error:
        if any((shipped / file).is_file() for file in files):
            return shipped
        raise CheckpointError(f"{error}, {shipped}") from error


def weights_hash(folder: Path) -> str:
    """SHA-256 over the weight files of a folder, in order of name.

    Raises:
        CheckpointError: it has none.
    """
    digest = hashlib.sha256()
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt"))
    if not files:
        raise CheckpointError(f"no weights in {folder} to know it by")
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def portable_path(target: Path, home: Path, data_root: str | Path | None = None) -> str:
    """`target` as a checkpoint in `home` should name it.

    What lies under `<data_root>/checkpoints` is named as it is there, anything else by its way from `home`, so that the
    folder that holds both can be moved as a whole.
    """
    target = target.resolve()
    if data_root is not None:
        checkpoints = (Path(data_root) / "checkpoints").resolve()
        if target.is_relative_to(checkpoints):
            return str(target.relative_to(checkpoints))
    return os.path.relpath(target, home.resolve())


def _places(name: str | Path, data_root: str | Path | None, near: Path | None) -> list[Path]:
    if Path(name).name == PARTS_FILE:
        name = Path(name).parent
    places = [Path(name)] if near is None else [near / name, Path(name)]
    if data_root is not None:
        places += [Path(data_root) / "checkpoints" / name, Path(data_root) / "checkpoints" / Path(name).name]
    return list(dict.fromkeys(places))


def _step(folder: Path) -> tuple[int, float]:
    """Order of checkpoints: by step where the name has one, then by time."""
    digits = folder.parent.name.rpartition("-")[2]
    return (int(digits) if digits.isdigit() else -1, folder.stat().st_mtime)
