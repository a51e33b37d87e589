# SPDX-License-Identifier: Apache-2.0
"""Preference optimisation on two processes (gloo): pairs of their own on each, and the run of one process."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.ranks import start_ranks
from tests.world import TinyWorld, metrics, weights

STEPS = 4
LEARNING_RATE = 0.001
SECTIONS: dict[str, Any] = {
    # An odd number of pairs, rows that hold a few documents: the ranks have different numbers of pairs and of batches.
    "training": {"steps": STEPS, "samples_per_step": {"t2i": 5}, "tokens_per_row": 290, "rows_per_micro_batch": 2},
    "optimizer": {"learning_rate": LEARNING_RATE},
    "dpo": {"sft_weight": 0.5},
}
LOGGED = ("loss/total", "loss/preference", "loss/chosen_images", "preference/reward_margin", "preference/kl_estimate")


@pytest.fixture(scope="module")
def one_process(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    outcome = start_ranks(
        "single_process.yaml", 1, folder / "log.txt", "train", tiny_world.config(folder, "dpo", **SECTIONS)
    )
    assert outcome.codes == [0], outcome.output[-3000:]
    return folder / "run"


@pytest.mark.parametrize(
    ("backend", "reference"), [("multi_gpu", "copy"), ("multi_gpu", "precomputed"), ("fsdp2", "precomputed")]
)
def test_two_processes_with_pairs_of_their_own_make_the_run_of_one(
    tiny_world: TinyWorld, tmp_path: Path, one_process: Path, backend: str, reference: str
) -> None:
    config = tiny_world.config(tmp_path, "dpo", **SECTIONS)
    log = tmp_path / "log.txt"
    outcome = start_ranks(f"{backend}.yaml", 2, log, "train", config, f"dpo.reference={reference}")
    assert outcome.codes == [0, 0], outcome.output[-3000:]
    ranks = [json.loads((tmp_path / "run" / f"rank-{rank}.json").read_text()) for rank in range(2)]
    for step in range(STEPS):
        seen = [rank["keys"][step] for rank in ranks]
        assert sorted(map(len, seen)) == [2, 3]
        assert not set(seen[0]) & set(seen[1])
    for line, single in zip(metrics(tmp_path / "run"), metrics(one_process), strict=True):
        for name in LOGGED:
            assert line[name] == pytest.approx(single[name], abs=2e-5), f"{name} of step {line['step']}"
        assert line["preference/reward_accuracy"] == pytest.approx(single["preference/reward_accuracy"])
    found, expected = weights(tmp_path / "run"), weights(one_process)
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < 2e-2 * LEARNING_RATE, name
