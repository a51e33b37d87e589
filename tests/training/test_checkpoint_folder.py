# SPDX-License-Identifier: Apache-2.0
"""A checkpoint folder is whole or not taken for one."""

import errno
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from safetensors import SafetensorError

from unigen.errors import CheckpointError
from unigen.training import checkpoint_folder as folders


def write(output_dir: Path, step: int) -> Path:
    folder = folders.checkpoint_folder(output_dir, step)
    folders.begin(folder, Path("state"))
    unfinished = folders.unfinished_folder(folder)
    (unfinished / "unwrapped_model").mkdir()
    (unfinished / "unwrapped_model" / "model.safetensors").write_bytes(b"x" * 1000)
    (unfinished / "state" / "rng.safetensors").write_bytes(b"y" * 10)
    folders.flush(unfinished)
    assert folders.commit(folder, {"step": step}) == 1010
    return folder


def cut(folder: Path, name: str = "unwrapped_model/model.safetensors", size: int = 400) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:size])


def test_a_committed_folder_is_whole_and_knows_its_files(tmp_path: Path) -> None:
    folder = write(tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]
    assert folders.find_damage(folder) is None
    content = json.loads((folder / "state" / "trainer.json").read_text())
    assert content == {"step": 5, "files": {"state/rng.safetensors": 10, "unwrapped_model/model.safetensors": 1000}}


def test_the_newest_is_that_of_the_largest_number(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        write(tmp_path, step)
    assert folders.newest_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    assert folders.saved_steps(tmp_path) == [9, 20, 100]


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("unwrapped_model/model.safetensors", 400, "unwrapped_model/model.safetensors has 400 of 1,000 bytes"),
        ("state/rng.safetensors", 0, "state/rng.safetensors has 0 of 10 bytes"),
        ("state/trainer.json", 7, "trainer.json cannot be read"),
    ],
)
def test_a_file_that_was_cut_off_is_named_and_the_folder_passed_over(
    tmp_path: Path, name: str, size: int, message: str
) -> None:
    write(tmp_path, 5)
    newest = write(tmp_path, 6)
    cut(newest, name, size)
    assert message in str(folders.find_damage(newest))
    assert folders.newest_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    (line,) = folders.set_damaged_aside(tmp_path)
    assert message in line
    assert "goes on from" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-5", "checkpoint-6.damaged"]


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, 5)
    (folder / "state" / "rng.safetensors").unlink()
    assert folders.find_damage(folder) == "state/rng.safetensors is missing"


def test_where_none_is_whole_the_run_does_not_begin_anew_by_itself(tmp_path: Path) -> None:
    cut(write(tmp_path, 5))
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole: checkpoint-5: .* has 400 of 1,000 bytes"):
        folders.set_damaged_aside(tmp_path)
    assert (tmp_path / "checkpoint-5").is_dir()


def test_a_checkpoint_without_sizes_is_taken(tmp_path: Path) -> None:
    folder = write(tmp_path, 5)
    (folder / "state" / "trainer.json").write_text('{"step": 5}')
    assert folders.newest_checkpoint(tmp_path) == folder


def test_what_was_never_finished_is_not_taken_and_goes(tmp_path: Path) -> None:
    write(tmp_path, 5)
    shutil.copytree(tmp_path / "checkpoint-5", tmp_path / "checkpoint-9.tmp")
    assert folders.newest_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    folders.remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_a_step_that_is_saved_again_replaces_the_earlier_one(tmp_path: Path) -> None:
    cut(write(tmp_path, 5))
    folder = write(tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]
    assert folders.find_damage(folder) is None


def test_too_little_space_names_the_folder_both_sizes_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1_250_000_000))
    folders.check_space(tmp_path / "checkpoint-7", 1_250_000_000)
    with pytest.raises(CheckpointError) as caught:
        folders.check_space(tmp_path / "checkpoint-7", 19_000_000_000)
    for part in (str(tmp_path / "checkpoint-7"), "19.00 GB", "1.25 GB", "make room", "experiment.keep_last"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_every_way_of_saying_full_becomes_the_same_line(tmp_path: Path, error: Exception) -> None:
    message = r"no space for .*checkpoint-7: it needs about 5\.00 MB"
    with pytest.raises(CheckpointError, match=message), folders.explained(tmp_path / "checkpoint-7", needed=5_000_000):
        raise error


def test_another_refusal_of_the_disk_says_why(tmp_path: Path) -> None:
    message = r"cannot write .*checkpoint-7 \(Read-only file system\)"
    with pytest.raises(CheckpointError, match=message), folders.explained(tmp_path / "checkpoint-7"):
        raise OSError(errno.EROFS, "Read-only file system")
