# SPDX-License-Identifier: Apache-2.0
"""A policy over masked tokens on two processes (gloo): groups of their own on each, advantages among all, and the run of one."""

import json
from pathlib import Path
from typing import Any

from tests.distributed.ranks import start_ranks
from tests.masked_policy import policy_config
from tests.world import TinyWorld, metrics, weights

STEPS = 3
LEARNING_RATE = 0.001
SECTIONS: dict[str, Any] = {
    # An odd number of prompts: the ranks have different numbers of groups and of batches.
    "training": {"steps": STEPS, "samples_per_step": {"t2i": 3}, "rows_per_micro_batch": 4},
    "optimizer": {"learning_rate": LEARNING_RATE},
    "grpo": {"updates_per_rollout": 2},
}
LOGGED = ("loss/policy", "reward/total", "reward/group_deviation", "policy/entropy")


def test_two_processes_with_groups_of_their_own_make_the_run_of_one(tiny_world: TinyWorld, tmp_path: Path) -> None:
    for name, backend, number in (("one", "single_process", 1), ("two", "multi_gpu", 2)):
        config = policy_config(tiny_world, tmp_path / name, **SECTIONS)
        outcome = start_ranks(f"{backend}.yaml", number, tmp_path / f"{name}.txt", "train", config)
        assert outcome.codes == [0] * number, outcome.output[-3000:]
    ranks = [json.loads((tmp_path / f"two/run/rank-{rank}.json").read_text()) for rank in range(2)]
    for step in range(STEPS):
        seen = [set(rank["keys"][step]) for rank in ranks]
        assert sorted(map(len, seen)) == [1, 2]
        assert not seen[0] & seen[1]
    for line, single in zip(metrics(tmp_path / "two/run"), metrics(tmp_path / "one/run"), strict=True):
        for name in LOGGED:
            assert abs(line[name] - single[name]) < 2e-5, f"{name} of step {line['step']}"
    found, expected = weights(tmp_path / "two/run"), weights(tmp_path / "one/run")
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < 2e-2 * LEARNING_RATE, name


def test_backends_that_split_weights_are_refused(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = policy_config(tiny_world, tmp_path)
    outcome = start_ranks("fsdp2.yaml", 2, tmp_path / "log.txt", "train", config)
    assert 2 in outcome.codes  # and with it the other ends
    assert "stage is grpo_generation, which needs whole weights on a rank; start it with" in outcome.output
