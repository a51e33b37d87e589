# SPDX-License-Identifier: Apache-2.0
"""UniFork on two processes (gloo): in every step one rank has a row to draw alone and the other a row to read alone.

Both make the run of one process, whatever is frozen and however weights are split; and kill -9 changes no bit of a run.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.ranks import Outcome, start_ranks, zero3_file
from tests.unifork_stages import stage_config
from tests.world import TinyWorld, metrics, weights

STEPS = 3
LEARNING_RATE = 0.003
BOTH_TASKS = {"t2i": 1, "mmu": 1}
SECTIONS: dict[str, Any] = {
    # What has no gradient but rounding (a bias of keys) must not be moved by it, so that runs can be compared.
    "optimizer": {"learning_rate": LEARNING_RATE, "epsilon": 1e-5},
    "data": {"lanes": 2},
}
STAGES = ("s1", "s2_sft", "s3_gen", "s3_und")
PAIRS = [
    ("multi_gpu", "s1"),
    ("multi_gpu", "s2_sft"),
    ("multi_gpu", "s3_gen"),
    ("zero2", "s3_gen"),
    ("zero3", "s2_sft"),
    ("fsdp2", "s2_sft"),
    ("fsdp2", "s3_und"),
]
"""Every backend and every stage; each pair more costs seconds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unifork")


@pytest.fixture(scope="module")
def one_process(tiny_world: TinyWorld, folder: Path) -> dict[str, Path]:
    """The runs of one process, by stage. All stages have samples of both tasks here."""
    runs = {}
    for stage in STAGES:
        config = both_tasks(tiny_world, folder / "one" / stage, stage)
        outcome = start_ranks("single_process.yaml", 1, folder / "one.log", "train", config)
        assert outcome.codes == [0], outcome.output[-3000:]
        runs[stage] = config.parent / "run"
    return runs


def both_tasks(world: TinyWorld, folder: Path, stage: str) -> Path:
    training = {"steps": STEPS, "samples_per_step": BOTH_TASKS}
    return stage_config(world, folder, stage, training=training, **SECTIONS)


@pytest.mark.parametrize(("name", "stage"), PAIRS)
def test_a_rank_that_draws_and_a_rank_that_reads_make_the_run_of_one(
    name: str, stage: str, tiny_world: TinyWorld, folder: Path, one_process: dict[str, Path]
) -> None:
    config = both_tasks(tiny_world, folder / name / stage, stage)
    accelerate_config = zero3_file(folder) if name == "zero3" else f"{name}.yaml"
    outcome = start_ranks(accelerate_config, 2, config.parent / "log.txt", "train", config)
    assert outcome.codes == [0, 0], outcome.output[-3000:]
    run, expected = config.parent / "run", one_process[stage]
    ranks = [json.loads((run / f"rank-{rank}.json").read_text()) for rank in range(2)]
    backend = {"multi_gpu": "replicated"}.get(name, name.replace("zero", "zero-"))
    assert [(one["world_size"], one["backend"]) for one in ranks] == [(2, backend)] * 2
    assert [sorted(tasks) for tasks in zip(*(one["tasks"] for one in ranks), strict=True)] == [
        [["mmu"], ["t2i"]]
    ] * STEPS
    if name in ("zero3", "fsdp2"):
        assert all(one["local_weights"] / one["weights"] == pytest.approx(1 / 2, rel=0.01) for one in ranks)
    for line, single in zip(metrics(run), metrics(expected), strict=True):
        for key in ("loss/t2i", "loss/mmu", "loss/total"):
            assert line[key] == pytest.approx(single[key], abs=1e-5), f"{key} of step {line['step']}"
        assert line["training/gradient_norm"] == pytest.approx(single["training/gradient_norm"], rel=1e-4)
    found, wanted = weights(run), weights(expected)
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert (found[key] - tensor).abs().max() < 1e-2 * LEARNING_RATE, key


@pytest.mark.parametrize(("name", "ranks", "stage"), [("single_process", 1, "s2_pretrain"), ("multi_gpu", 2, "s2_sft")])
def test_a_run_killed_between_saves_goes_on_to_the_same_bits(
    name: str, ranks: int, stage: str, tiny_world: TinyWorld, folder: Path
) -> None:
    """With dropout in the depth transformer, whose draws go on where they were too."""
    whole, parts = (
        stage_config(
            tiny_world,
            folder / f"{name}-{kind}",
            stage,
            dropout=0.1,
            training={"steps": 5},
            experiment={"checkpoint_every": 2, "keep_last": 0},
            data={"lanes": 2},
        )
        for kind in ("whole", "parts")
    )

    def start(config: Path, *words: str, kill: str = "") -> Outcome:
        return start_ranks(f"{name}.yaml", ranks, config.parent / "log.txt", "train", config, *words, kill=kill)

    assert set(start(whole).codes) == {0}
    # What is killed waits for its checkpoints, so that there is one to go on from.
    assert set(start(parts, "experiment.async_save=false", kill="after:3").codes) == {-9}
    outcome = start(parts)
    assert set(outcome.codes) == {0}, outcome.output[-3000:]
    assert f"going on from {parts.parent / 'run' / 'checkpoint-2'}" in outcome.output
    found, expected = weights(parts.parent / "run"), weights(whole.parent / "run")
    assert found.keys() == expected.keys()
    assert [key for key, tensor in expected.items() if not torch.equal(found[key], tensor)] == []
    losses = [[(line["step"], line["loss/total"]) for line in metrics(one.parent / "run")] for one in (parts, whole)]
    assert losses[0] == losses[1]
