# SPDX-License-Identifier: Apache-2.0
"""Shards on the disk of the node that reads them (`data.stage_to`).

Every lane comes by every shard of its sources over the epochs, and any node may have any lane after a restart: so all shards of
all local sources are copied to every node, by the first of its processes that comes by. The others wait for it at a lock on that
disk, with no collective that could time out. A copy has its original's size and time and is there whole or not at all; sources
read it in place of the original under the original's name, so a run is the same run with and without.

What is staged: tars, shards of codes and parquet files. Records and the images that they name stay where they are.
"""

import errno
import fcntl
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unigen.config.schema import RECORD_FORMATS, DataConfig, SourceConfig
from unigen.data import codes, shards
from unigen.data.local_copies import copy_of, is_fresh, stage_place
from unigen.errors import ConfigError, DataError

_COPIES_AT_ONCE = 8
_PARQUET = (".parquet",)


@dataclass(frozen=True)
class StagePlan:
    """Which files go where."""

    place: Path
    files: Sequence[Path]
    missing: Sequence[Path]
    """Those of `files` of which there is no fresh copy yet."""

    @property
    def num_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    @property
    def missing_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.missing)


def stage_shards(data: DataConfig) -> str | None:
    """Copy what is not on this node's disk yet; returns a line about it, None where `data.stage_to` is null.

    Raises:
        ConfigError: a place whose variable is not set, or remote shards.
        DataError: not enough space, or a file that cannot be copied.
    """
    if data.stage_to is None:
        return None
    place = stage_place(data.stage_to)
    started = time.monotonic()
    try:
        with _alone(place):
            plan = plan_staging(data)
            _require_space(plan)
            with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
                list(pool.map(lambda file: _copy(file, copy_of(file, place)), plan.missing))
    except OSError as error:
        remedy = "make room there" if error.errno == errno.ENOSPC else "is it yours to write?"
        raise DataError(f"data.stage_to: cannot stage to {place}: {error}; {remedy} Or set it to null") from error
    return (
        f"{platform.node()} reads {len(plan.files)} shards from {place}; {len(plan.missing)} of them "
        f"({plan.missing_bytes / 1e9:.2f} GB) were copied in {time.monotonic() - started:.1f} s"
    )


def plan_staging(data: DataConfig) -> StagePlan:
    """What `stage_shards` would do here now.

    Raises:
        ConfigError, DataError: see `stage_shards`.
    """
    assert data.stage_to is not None
    place = stage_place(data.stage_to)
    files = shards_to_stage(data)
    return StagePlan(place, files, [file for file in files if not is_fresh(file, copy_of(file, place))])


def shards_to_stage(data: DataConfig) -> list[Path]:
    """The files that staging is about; one that is not there is left to its reader to report.

    Raises:
        ConfigError: a remote shard.
        DataError: a source of which nothing is there.
    """
    found = [file for name, source in data.sources.items() if source.weight > 0 for file in _files(name, source, data)]
    return list(dict.fromkeys(file for file in found if file.is_file()))


def _files(name: str, source: SourceConfig, data: DataConfig) -> list[Path]:
    if source.format in (*RECORD_FORMATS, "imagefolder"):
        return []
    if source.format == "parquet":
        return shards.expand_files(source.paths, data.root, _PARQUET)
    suffixes = (codes.SUFFIX,) if source.format == "codes" else shards.TAR_SUFFIXES
    found = shards.expand_shards(source.paths, data.root, allow_pipe=data.allow_pipe, suffixes=suffixes)
    remote = next((shard for shard in found if shards.scheme_of(shard)), None)
    if remote is not None:
        raise ConfigError(
            f"data.sources.{name}: {remote} is remote, and data.stage_to copies local files alone; "
            "set data.stage_to=null to stream it, or download it first"
        )
    return [Path(shard) for shard in found]


def _copy(file: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(f".{copy.name}.tmp")
    try:
        shutil.copyfile(file, partial)
        shutil.copystat(file, partial)
        os.replace(partial, copy)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _require_space(plan: StagePlan) -> None:
    needed, free = plan.missing_bytes, shutil.disk_usage(plan.place).free
    if needed > free:
        raise DataError(
            f"data.stage_to: {plan.place} on {platform.node()} has {free / 1e9:.2f} GB free, the {len(plan.missing)} shards "
            f"that are not there yet need {needed / 1e9:.2f} GB; name a larger disk, or set it to null"
        )


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process of the node at a time; a lock ends with the process that holds it."""
    place.mkdir(parents=True, exist_ok=True)
    with open(place / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
