# SPDX-License-Identifier: Apache-2.0
"""A policy that draws on two processes (gloo): groups of their own on each, and the run of one process."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.ranks import start_ranks
from tests.training.stages.test_flow_policy import policy_config
from tests.world import TinyWorld, metrics, weights

STEPS = 3
LEARNING_RATE = 0.01
SECTIONS: dict[str, Any] = {
    # An odd number of prompts: the ranks have different numbers of groups and of batches. A batch is a group, on any rank.
    "training": {"steps": STEPS, "samples_per_step": {"t2i": 3}, "rows_per_micro_batch": 3, "ema_decay": 0.5},
    "optimizer": {"learning_rate": LEARNING_RATE},
    "grpo": {"kl_weight": 0.1, "updates_per_rollout": 2, "flow": {"steps": 6, "trained_steps": 2}},
}
LOGGED = (
    *("loss/total", "loss/policy", "loss/kl", "reward/total", "reward/group_deviation"),
    *("policy/ratio", "policy/clipped_fraction", "prompt/tokens"),
)


def test_two_processes_with_groups_of_their_own_make_the_run_of_one(tiny_world: TinyWorld, tmp_path: Path) -> None:
    runs = {}
    for name, backend, number in (("one", "single_process.yaml", 1), ("two", "multi_gpu.yaml", 2)):
        config = policy_config(tiny_world, tmp_path / name, **SECTIONS)
        outcome = start_ranks(backend, number, tmp_path / f"{name}.txt", "train", config)
        assert outcome.codes == [0] * number, outcome.output[-3000:]
        runs[name] = tmp_path / name / "run"
    ranks = [json.loads((runs["two"] / f"rank-{rank}.json").read_text()) for rank in range(2)]
    for step in range(STEPS):
        seen = [rank["keys"][step] for rank in ranks]
        assert sorted(map(len, seen)) == [1, 2]
        assert not set(seen[0]) & set(seen[1])
    for line, single in zip(metrics(runs["two"]), metrics(runs["one"]), strict=True):
        for name in LOGGED:
            assert line[name] == pytest.approx(single[name], abs=1e-4), f"{name} of step {line['step']}"
    found, expected = weights(runs["two"]), weights(runs["one"])
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < 0.05 * LEARNING_RATE, name
