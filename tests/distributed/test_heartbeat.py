# SPDX-License-Identifier: Apache-2.0
"""One of two ranks hangs in its data: both leave their stacks, and the job asks to be started again."""

import json
import os
import shutil
import signal
from pathlib import Path

from tests.distributed.ranks import start_ranks
from tests.world import SOURCES, TinyWorld
from unigen.training.signals import REQUEUE_EXIT_CODE

HANGING_SHARD = "train-00006.tar"


def test_a_rank_that_hangs_in_its_data_is_found(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """A shard is a named pipe that nobody writes into: to open it is to wait for ever, as on a file system that is gone."""
    root = tmp_path / "root"
    shutil.copytree(tiny_world.root, root)
    shard = root / "datasets" / "shapes_short" / HANGING_SHARD
    shard.unlink()
    os.mkfifo(shard)
    config = tiny_world.config(
        tmp_path,
        experiment={"stuck_after_minutes": 0.4},
        data={"root": str(root), "sources": {"draw": SOURCES["draw"]}},
        training={"steps": 1000, "samples_per_step": {"t2i": 8}},
    )
    outcome = start_ranks(None, 2, tmp_path / "log.txt", "train", config)
    # The first that ends takes the other down, which is about to end with the same code.
    assert REQUEUE_EXIT_CODE in outcome.codes, outcome.output[-3000:]
    assert set(outcome.codes) <= {REQUEUE_EXIT_CODE, -signal.SIGKILL}
    assert (tmp_path / "run" / "requeue").is_file()
    hearts = [json.loads((tmp_path / "run" / "heartbeats" / f"rank-{rank}").read_text()) for rank in (0, 1)]
    assert len({heart["pid"] for heart in hearts}) == 2
    step = hearts[0]["step"]
    assert hearts[1]["step"] == step >= 1
    assert f"no step has ended for 0.4 minutes since step {step}" in outcome.output
    stacks = [(tmp_path / "run" / "stacks" / f"rank-{rank}.txt").read_text() for rank in (0, 1)]
    (hanging,) = [stack for stack in stacks if "in open_shard" in stack]
    (waiting,) = [stack for stack in stacks if stack != hanging]
    assert "in _agree" in waiting
    assert "in _agree" not in hanging
