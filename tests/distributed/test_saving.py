# SPDX-License-Identifier: Apache-2.0
"""Ranks that each write a part of a checkpoint beside training: whole when all parts are there, given up when one fails."""

import json
from pathlib import Path

from tests.distributed import stubborn_disk
from tests.distributed.ranks import start_ranks
from tests.world import TinyWorld
from unigen.training.checkpoint_folder import find_damage


def test_a_checkpoint_of_two_ranks_waits_for_both_parts_and_is_given_up_if_one_has_no_room(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    config = tiny_world.config(
        tmp_path, experiment={"checkpoint_every": 2, "keep_last": 0}, training={"steps": 6, "rows_per_micro_batch": 2}
    )
    outcome = start_ranks("fsdp2.yaml", 2, tmp_path / "log.txt", "train", config, run=stubborn_disk.run)
    assert outcome.codes == [0, 0], outcome.output[-3000:]
    run = tmp_path / "run"
    held = json.loads((run / stubborn_disk.HELD).read_text())
    assert held == {"step": 4, "checkpoints": ["checkpoint-2.tmp"]}, (
        "two steps were trained, and the half was no checkpoint"
    )
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-6"]
    for step in (2, 6):
        assert find_damage(run / f"checkpoint-{step}") is None
        parts = sorted(path.name for path in (run / f"checkpoint-{step}" / "state" / "backend").iterdir())
        assert parts == ["part-00000.safetensors", "part-00001.safetensors"]
    assert f"WARNING: no space for {run / 'checkpoint-4'}" in outcome.output
