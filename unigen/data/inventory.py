# SPDX-License-Identifier: Apache-2.0
"""Whether what a configuration wants is on this disk, and which command brings what is not."""

from dataclasses import dataclass
from pathlib import Path

from braceexpand import braceexpand

from unigen.config.assets import Wanted, wanted_by
from unigen.config.folders import (
    ADAPTER_WEIGHTS,
    LONG_CLIP_WEIGHTS,
    OPEN_CLIP_WEIGHTS,
    REPOSITORY,
    WEIGHT_FILES,
    find_config,
    find_model,
    find_tokenizer,
)
from unigen.config.load import load_config
from unigen.config.schema import Config
from unigen.data.shards import TAR_SUFFIXES
from unigen.errors import CheckpointError, ConfigError

ANY_WEIGHTS = (*WEIGHT_FILES, ADAPTER_WEIGHTS, *OPEN_CLIP_WEIGHTS, *LONG_CLIP_WEIGHTS)
SHAPES_FOLDERS = ("shapes_short", "shapes_long", "conversations", "text", "tokenizer", "prompts")
"""What `unigen data shapes` writes for training."""


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
    """Looks where training will look."""
    try:
        if wanted.kind == "config":
            find_config(wanted.name, root)
        elif wanted.kind == "tokenizer":
            find_tokenizer(wanted.name, root)
        else:
            find_model(wanted.name, root, files=ANY_WEIGHTS)
    except CheckpointError:
        return False
    return True


def _count_data(wanted: Wanted, root: Path) -> tuple[int, int]:
    if "://" in wanted.name or wanted.name.startswith("pipe:"):
        return 1, 1
    paths = [root / "datasets" / path for path in braceexpand(wanted.name)]
    return sum(_has_content(path) for path in paths), len(paths)


def _has_content(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and next(path.iterdir(), None) is not None)


def _remedy(wanted: Wanted, root: Path) -> str:
    datasets = root / "datasets"
    place = (datasets if wanted.kind == "dataset" else Path()) / wanted.name
    if wanted.asset is not None:
        return f"unigen download {wanted.asset.name} --data-root {root}"
    if place.is_relative_to(datasets) and place.relative_to(datasets).parts[0] in SHAPES_FOLDERS:
        return f"unigen data shapes --output {datasets}"
    if wanted.kind == "dataset":
        maker = wanted.maker
        if place.name.endswith(TAR_SUFFIXES):
            maker = f"unigen convert data SOURCE --kind folder --output {place.parent}"
        return f"copy it to {place}{f', or make it: {maker} (see its --help)' if maker else ''}"
    if "/" in wanted.name:
        return _training_of(wanted.name, root) or f"run what writes it, or give another path for {wanted.key}"
    return f"place it in {root / 'checkpoints' / wanted.name}"


def _training_of(name: str, root: Path) -> str | None:
    """The command that trains what a shipped recipe writes: into the folder `name`, or under its own name."""
    for path in sorted((REPOSITORY / "configs").glob("*/*.yaml")):
        try:
            experiment = load_config(path).experiment
        except ConfigError:  # no recipe of its own: what others are based on, or another program's
            continue
        recipe = path.relative_to(REPOSITORY)
        if Path(name) == Path(experiment.output_dir):
            return f"unigen train {recipe}"
        if Path(name).parts[0] == experiment.name:
            return f"unigen train {recipe} experiment.output_dir={root / 'checkpoints' / experiment.name}"
    return None
