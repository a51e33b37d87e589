# SPDX-License-Identifier: Apache-2.0
"""`data.stage_to`: shards on the node's own disk are read in place of the originals, and change nothing else."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.world import TinyWorld, metrics, train, weights
from unigen.config.load import load_config
from unigen.config.schema import Config, DataConfig
from unigen.data import staging
from unigen.data.local_copies import FOLDER, local_copy
from unigen.errors import ConfigError, DataError


def _data(world: TinyWorld, tmp_path: Path, **settings: Any) -> DataConfig:
    config: Config = load_config(world.config(tmp_path))
    return replace(config.data, stage_to=str(tmp_path / "disk"), **settings)


def _copies(tmp_path: Path) -> list[Path]:
    return sorted(file for file in (tmp_path / "disk" / FOLDER).rglob("*") if file.is_file() and file.name != ".lock")


def test_every_local_tar_and_parquet_file_is_copied_once(tiny_world: TinyWorld, tmp_path: Path) -> None:
    data = _data(tiny_world, tmp_path)
    said = staging.stage_shards(data)
    assert said is not None
    assert "; 20 of them" in said  # 16 tars, which two sources read, and 4 files of text
    assert {file.suffix for file in _copies(tmp_path)} == {".tar", ".parquet"}
    for copy in _copies(tmp_path):
        folder = "shapes_short" if copy.suffix == ".tar" else "text"
        assert copy.read_bytes() == (tiny_world.root / "datasets" / folder / copy.name).read_bytes()
    said = staging.stage_shards(data)
    assert said is not None
    assert "; 0 of them" in said


def test_a_run_that_reads_from_the_node_is_the_same_run(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    staged = tiny_world.config(tmp_path / "staged", data={"stage_to": "$NODE_DISK"})
    direct = tiny_world.config(tmp_path / "direct")
    assert train(staged) == train(direct) == 0
    for run, other in zip(metrics(tmp_path / "staged" / "run"), metrics(tmp_path / "direct" / "run"), strict=True):
        assert run["loss/total"] == other["loss/total"]
    found, expected = weights(tmp_path / "staged" / "run"), weights(tmp_path / "direct" / "run")
    assert all(bool((found[name] == expected[name]).all()) for name in expected)
    assert len(_copies(tmp_path)) == 20


def test_the_copy_is_what_is_read_until_the_original_changes(tiny_world: TinyWorld, tmp_path: Path) -> None:
    data = _data(tiny_world, tmp_path)
    shard = str(tiny_world.root / "datasets" / "shapes_short" / "train-00000.tar")
    assert local_copy(shard, data) == shard
    staging.stage_shards(data)
    copy = Path(local_copy(shard, data))
    assert copy.is_relative_to(tmp_path / "disk")
    os.utime(copy, (0, 0))  # as if the original were another by now
    assert local_copy(shard, data) == shard
    assert "; 1 of them" in str(staging.stage_shards(data))
    assert Path(local_copy(shard, data)) == copy


def test_what_a_process_that_was_killed_left_is_never_read(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:100])
        raise KeyboardInterrupt

    data = _data(tiny_world, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(staging.shutil, "copyfile", torn)
        with pytest.raises(KeyboardInterrupt):
            staging.stage_shards(data)
    assert _copies(tmp_path) == []
    assert "; 20 of them" in str(staging.stage_shards(data))


def test_of_the_processes_of_a_node_one_copies_and_the_others_wait(tiny_world: TinyWorld, tmp_path: Path) -> None:
    data = _data(tiny_world, tmp_path)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        said = pool.map(staging.stage_shards, [data] * 4)
    assert sorted(line.split("; ")[1].split()[0] for line in said) == ["0", "0", "0", "20"]


def test_a_disk_that_is_too_small_is_said_before_anything_is_copied(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = staging.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"0\.00 GB free, the 20 shards .* need 0\.\d\d GB"):
        staging.stage_shards(_data(tiny_world, tmp_path))
    assert _copies(tmp_path) == []


def test_what_cannot_be_staged_is_refused(tiny_world: TinyWorld, tmp_path: Path) -> None:
    data = _data(tiny_world, tmp_path)
    with pytest.raises(ConfigError, match="that variable is not set"):
        staging.stage_shards(replace(data, stage_to="$NO_SUCH_DISK/scratch"))
    draw = replace(data.sources["draw"], paths=["s3://bucket/train-{00..11}.tar"])
    with pytest.raises(ConfigError, match=r"data.sources.draw: s3://bucket/train-00.tar is remote"):
        staging.stage_shards(replace(data, sources={"draw": draw}))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot stage to"):
        staging.stage_shards(replace(data, stage_to=str(tmp_path / "file")))
