# SPDX-License-Identifier: Apache-2.0
"""Reading a shard from the copy that `staging` made of it on the node's own disk."""

import hashlib
import os
import platform
from pathlib import Path

from unigen.config.schema import DataConfig
from unigen.data.shards import scheme_of
from unigen.errors import ConfigError

FOLDER = "unigen-shards"
"""Under the place that `data.stage_to` names."""


def local_copy(shard: str, data: DataConfig) -> str:
    """The staged copy of a shard where there is a fresh one, else the shard itself."""
    if data.stage_to is None or scheme_of(shard):
        return shard
    copy = copy_of(Path(shard), stage_place(data.stage_to))
    return str(copy) if is_fresh(Path(shard), copy) else shard


def stage_place(stage_to: str) -> Path:
    """The folder that the key means on this machine, with variables of the environment put in.

    Raises:
        ConfigError: a variable that is not set here.
    """
    place = os.path.expandvars(stage_to)
    if "$" in place:
        raise ConfigError(
            f"data.stage_to is {stage_to}, but that variable is not set on {platform.node()}; "
            "name a folder of the node's own disk, or set it to null"
        )
    return Path(place) / FOLDER


def copy_of(file: Path, place: Path) -> Path:
    """Where the copy of a file belongs; files of one name in several folders get a folder each."""
    folder = hashlib.sha256(str(file.parent.absolute()).encode()).hexdigest()[:16]
    return place / folder / file.name


def is_fresh(file: Path, copy: Path) -> bool:
    """Whether a copy has the size and the time of its original."""
    try:
        there = copy.stat()
    except OSError:
        return False
    try:
        here = file.stat()
    except FileNotFoundError:
        return False
    except OSError:  # the original's disk does not answer, which is when a copy is worth most
        return True
    return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
