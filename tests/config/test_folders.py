# SPDX-License-Identifier: Apache-2.0
"""Which folder a name means, and how a checkpoint names another."""

import os
from pathlib import Path

import pytest

from unigen.config.folders import find_config, find_model, find_tokenizer, portable_path
from unigen.errors import CheckpointError


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_folder_with_a_config_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    model(tmp_path / "a" / "unwrapped_model")
    assert find_model(folder) == folder


def test_a_checkpoint_means_its_unwrapped_model(tmp_path: Path) -> None:
    assert find_model(model(tmp_path / "checkpoint-1" / "unwrapped_model").parent) == (
        tmp_path / "checkpoint-1" / "unwrapped_model"
    )


def test_a_run_means_its_newest_checkpoint_by_step(tmp_path: Path) -> None:
    for step in (1000, 200, 30):
        model(tmp_path / "run" / f"checkpoint-{step}" / "unwrapped_model")
    os.utime(tmp_path / "run" / "checkpoint-30" / "unwrapped_model")
    assert find_model(tmp_path / "run") == tmp_path / "run" / "checkpoint-1000" / "unwrapped_model"


def test_a_checkpoint_that_was_never_finished_is_not_taken(tmp_path: Path) -> None:
    model(tmp_path / "run" / "checkpoint-9.tmp" / "unwrapped_model")
    with pytest.raises(CheckpointError):
        find_model(tmp_path / "run")


def test_a_path_as_given_comes_before_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here, there = model(tmp_path / "name"), model(tmp_path / "data" / "checkpoints" / "name")
    assert find_model("name", "data").resolve() == here
    (here / "config.json").unlink()
    assert find_model("name", "data").resolve() == there


def test_the_last_part_of_a_hub_name_is_found_under_the_data_root(tmp_path: Path) -> None:
    folder = model(tmp_path / "checkpoints" / "magvitv2")
    assert find_model("showlab/magvitv2", tmp_path) == folder


def test_what_a_checkpoint_names_is_looked_up_from_the_checkpoint_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = model(tmp_path / "run" / "unwrapped_model")
    right, wrong = model(tmp_path / "tokenizer"), model(tmp_path / "work" / "inner" / "tokenizer")
    monkeypatch.chdir(model(tmp_path / "work" / "inner" / "a" / "b"))
    assert find_model("../../tokenizer", near=home).resolve() == right
    assert wrong.is_dir()


def test_the_error_lists_all_that_was_tried(tmp_path: Path) -> None:
    model(tmp_path / "empty" / "checkpoint-1" / "unwrapped_model")
    (tmp_path / "empty" / "checkpoint-1" / "unwrapped_model" / "config.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        find_model(tmp_path / "empty", tmp_path / "data")
    message = str(caught.value)
    for place in (
        tmp_path / "empty",
        tmp_path / "empty" / "unwrapped_model",
        tmp_path / "empty" / "checkpoint-1" / "unwrapped_model",
        tmp_path / "data" / "checkpoints" / "empty",
        tmp_path / "data" / "checkpoints" / "empty" / "unwrapped_model",
    ):
        assert str(place) in message


def test_a_shipped_configuration_will_do_where_no_weights_are_needed(tmp_path: Path) -> None:
    assert (find_config("Qwen2.5-1.5B-Instruct", tmp_path) / "config.json").is_file()
    with pytest.raises(CheckpointError, match="Qwen9"):
        find_config("Qwen9", tmp_path)


def test_a_text_tokenizer_needs_no_model_beside_it(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text("{}")
    assert find_tokenizer(tmp_path / "words") == tmp_path / "words"
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        find_tokenizer(tmp_path)


def test_a_reference_is_a_name_under_the_data_root_and_else_a_way_from_the_checkpoint(tmp_path: Path) -> None:
    home = tmp_path / "runs" / "pt1" / "checkpoint-5.tmp" / "unwrapped_model"
    named = model(tmp_path / "data" / "checkpoints" / "magvitv2")
    assert portable_path(named, home, tmp_path / "data") == "magvitv2"
    beside = model(tmp_path / "runs" / "tokenizer")
    assert portable_path(beside, home, tmp_path / "data") == "../../../tokenizer"
