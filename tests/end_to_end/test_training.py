# SPDX-License-Identifier: Apache-2.0
"""Every stage through the command line, from the files of a data set to a folder that loads, draws and answers."""

from pathlib import Path

import pytest

from tests.world import TinyWorld, metrics, train


@pytest.mark.parametrize("stage", ["tokenizer", "vision", "pretrain", "sft"])
def test_a_stage_trains_from_files_to_weights(world: TinyWorld, tmp_path: Path, stage: str) -> None:
    assert train(world.config(tmp_path, stage)) == 0
    checkpoint = tmp_path / "run" / "checkpoint-3"
    assert (checkpoint / "unwrapped_model" / "config.json").is_file()
    assert list((checkpoint / "unwrapped_model").glob("*.safetensors"))
    assert (checkpoint / "state").is_dir()
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3]
