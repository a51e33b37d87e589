# SPDX-License-Identifier: Apache-2.0
"""Whether what a configuration wants is on this disk, and which command brings what is not."""

from dataclasses import dataclass
from pathlib import Path

from braceexpand import braceexpand

from unigen.config.assets import Wanted, wanted_by
from unigen.config.schema import Config

NEEDED_FILES = {
    "weights": ("*.safetensors", "*.bin"),
    "config": ("config.json",),
    "tokenizer": ("tokenizer.json", "tokenizer_config.json", "vocab.json"),
}


@dataclass(frozen=True)
class Finding:
    """What was found of one wanted thing."""

    wanted: Wanted
    found: int
    """How many of its files or folders are there."""
    total: int
    remedy: str
    """The command that brings it; empty when nothing is missing."""

    @property
    def is_missing(self) -> bool:
        return self.found < self.total


def take_inventory(config: Config) -> list[Finding]:
    """One finding per checkpoint and dataset of `config`. Remote data is taken to be there."""
    root = Path(config.data.root)
    findings = []
    for wanted in wanted_by(config):
        found, total = _count_data(wanted, root) if wanted.kind == "dataset" else (_has_model(wanted, root), 1)
        findings.append(Finding(wanted, found, total, _remedy(wanted, root) if found < total else ""))
    return findings


def _has_model(wanted: Wanted, root: Path) -> bool:
    """Looks where a model path is resolved: as given, under checkpoints/, then in their `unwrapped_model` folders."""
    for folder in (Path(wanted.name), root / "checkpoints" / wanted.name):
        for place in (folder, folder / "unwrapped_model", *folder.glob("*/unwrapped_model")):
            if any(next(place.glob(pattern), None) for pattern in NEEDED_FILES[wanted.kind]):
                return True
    return False


def _count_data(wanted: Wanted, root: Path) -> tuple[int, int]:
    if "://" in wanted.name or wanted.name.startswith("pipe:"):
        return 1, 1
    paths = [root / "datasets" / path for path in braceexpand(wanted.name)]
    return sum(_has_content(path) for path in paths), len(paths)


def _has_content(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and next(path.iterdir(), None) is not None)


def _remedy(wanted: Wanted, root: Path) -> str:
    if wanted.asset is not None:
        return f"unigen download {wanted.asset.name} --data-root {root}"
    if wanted.kind == "dataset":
        return f"write it with `unigen convert data`, or copy it to {root / 'datasets' / wanted.name}"
    if wanted.key == "model.pretrained":
        return f"train it with the stage before, or place it in {root / 'checkpoints' / wanted.name}"
    return f"place it in {root / 'checkpoints' / wanted.name}"
