# SPDX-License-Identifier: Apache-2.0
"""DDP, ZeRO-2, ZeRO-3 and FSDP2 on several processes of the CPU (gloo) do what one process does.

Samples are packed into several micro-batches, whose number differs between the ranks; every step has one sample of text, so
all ranks but one lack that task; clipping is at work; the learning rate is that of a real run or more.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.ranks import launched, start_ranks, zero3_file
from tests.world import TinyWorld, metrics, weights

STEPS = 10
LEARNING_RATE = 0.003
CLIP = 0.5
SECTIONS: dict[str, Any] = {
    "training": {
        "steps": STEPS,
        "samples_per_step": {"t2i": 7, "mmu": 3, "lm": 1},
        "rows_per_micro_batch": 1,
        "gradient_clipping": CLIP,
        "loss_weights": {"mmu": 0.5},
    },
    "optimizer": {"learning_rate": LEARNING_RATE},
    "data": {"num_workers": 1},
}


@dataclass(frozen=True)
class Run:
    lines: list[dict[str, Any]]
    weights: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backends")


@pytest.fixture(scope="module")
def one_process(tiny_world: TinyWorld, folder: Path) -> Run:
    return alone(tiny_world.config(folder / "one", "sft", **SECTIONS))


def alone(config: Path, *words: str) -> Run:
    """The run of one process."""
    outcome = start_ranks("single_process.yaml", 1, config.parent / "log.txt", "train", config, *words)
    assert outcome.codes == [0], outcome.output[-3000:]
    run = config.parent / "run"
    return Run(metrics(run), weights(run))


def facts(run: Path) -> list[dict[str, Any]]:
    """What each rank says of itself, see `observed`; checks that each had data of its own, and what tasks it lacked."""
    ranks = [json.loads(path.read_text()) for path in sorted(run.glob("rank-*.json"))]
    assert [rank["world_size"] for rank in ranks] == [len(ranks)] * len(ranks)
    for step, keys in enumerate(zip(*(rank["keys"] for rank in ranks), strict=True)):
        everything = [key for part in keys for key in part]
        assert len(set(everything)) == len(everything) == 11, "no sample is on two ranks"
        assert sum("lm" in rank["tasks"][step] for rank in ranks) == 1, "the other ranks have no text in this step"
    return ranks


def assert_same_run(run: Path, expected: Run, steps: int = STEPS) -> None:
    lines = metrics(run)
    assert len(lines) == steps
    for line, single in zip(lines, expected.lines, strict=False):
        assert single["training/gradient_norm"] > CLIP, "clipping is at work"
        for name in ("loss/t2i", "loss/mmu", "loss/lm", "loss/total"):
            assert line[name] == pytest.approx(single[name], abs=1e-5), f"{name} of step {line['step']}"
        assert line["training/gradient_norm"] == pytest.approx(single["training/gradient_norm"], rel=1e-4)
    found = weights(run)
    assert found.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        assert found[name].dtype == torch.float32
        # AdamW moves a weight by up to the learning rate in each step; sums in another order leave a hundredth of one.
        assert (found[name] - tensor).abs().max() < 1e-2 * LEARNING_RATE, name


@pytest.mark.parametrize("name", ["multi_gpu", "zero2", "zero3", "fsdp2"])
def test_two_processes_of_accelerate_launch_have_the_losses_and_weights_of_one(
    name: str, tiny_world: TinyWorld, folder: Path, one_process: Run
) -> None:
    config = tiny_world.config(folder / name, "sft", **SECTIONS)
    finished = launched(f"{name}.yaml", 2, "train", config)
    run = folder / name / "run"
    assert finished.returncode == 0, (finished.stdout + finished.stderr)[-3000:]
    ranks = facts(run)
    assert len(ranks) == 2
    for rank in ranks:
        spread = (rank["backend"], rank["local_weights"] / rank["weights"], rank["optimizer_values"] / rank["weights"])
        if name == "multi_gpu":
            assert rank["wrapper"] == "DistributedDataParallel"
            assert spread == ("replicated", 1, 1)
        if name == "zero2":
            assert spread == ("zero-2", 1, pytest.approx(1 / 2, rel=0.01))
        if name == "zero3":
            assert spread == ("zero-3", pytest.approx(1 / 2, rel=0.01), pytest.approx(1 / 2, rel=0.01))
        if name == "fsdp2":
            assert spread == ("fsdp2", 1 / 2, 1 / 2)
            assert set(rank["placements"].values()) == {"(Shard(dim=0),)"}
            assert any("layers.0.self_attn.q_proj" in weight for weight in rank["placements"])
    assert_same_run(run, one_process)


def test_four_ranks_over_the_same_lanes_have_the_losses_of_one_and_two(
    tiny_world: TinyWorld, folder: Path, one_process: Run
) -> None:
    """Of torchrun, which tells them nothing but their ranks: without a GPU they must find each other all the same."""
    config = tiny_world.config(folder / "four", "sft", **SECTIONS)
    outcome = start_ranks(None, 4, folder / "four.log", "train", config)
    assert outcome.codes == [0] * 4, outcome.output[-3000:]
    assert len(facts(folder / "four" / "run")) == 4
    assert_same_run(folder / "four" / "run", one_process)


def test_a_projector_that_a_stage_never_runs_stays_as_it_was(tiny_world: TinyWorld, folder: Path) -> None:
    """Pre-training that reads through codes, from a checkpoint that reads features: DDP would wait for its gradient."""
    start = alone(tiny_world.config(folder / "features", "sft", training={"steps": 1}))
    model = {"initialization": "pretrained", "pretrained": str(folder / "features" / "run")}
    config = tiny_world.config(folder / "unread", "pretrain", model=model, training={"steps": 2})
    outcome = start_ranks("multi_gpu.yaml", 2, folder / "unread.log", "train", config)
    assert outcome.codes == [0, 0], outcome.output[-3000:]
    found = weights(folder / "unread" / "run")
    same = {name for name, tensor in start.weights.items() if torch.equal(found[name], tensor)}
    assert same == {name for name in found if name.startswith("mm_projector.")} != set()


@pytest.mark.parametrize("name", ["zero3", "fsdp2"])
@pytest.mark.parametrize("tie", ["true", "false"])
def test_the_head_that_the_loss_reads_is_whole_and_learns_where_weights_are_split(
    name: str, tie: str, tiny_world: TinyWorld, folder: Path
) -> None:
    """No weight stays whole between the steps; the output embedding is the input's, or a matrix of its own."""
    words = ["training.steps=3", f"model.tie_word_embeddings={tie}"]
    two, one = (tiny_world.config(folder / f"{name}-{tie}-{number}", "sft", **SECTIONS) for number in ("two", "one"))
    accelerate_config = zero3_file(folder) if name == "zero3" else f"{name}.yaml"
    outcome = start_ranks(accelerate_config, 2, folder / f"{name}-{tie}.log", "train", two, *words)
    assert outcome.codes == [0, 0], outcome.output[-3000:]
    for rank in facts(two.parent / "run"):
        assert rank["backend"] == name.replace("zero", "zero-")
        assert rank["local_weights"] / rank["weights"] == pytest.approx(1 / 2, rel=0.01)
    expected = alone(one, *words)
    assert ("llm.lm_head.weight" in expected.weights) == (tie == "false")
    assert_same_run(two.parent / "run", expected, steps=3)


@pytest.mark.parametrize("name", ["multi_gpu", "zero2", "zero3", "fsdp2"])
def test_bfloat16_is_close_to_float32_and_saves_float32_weights(
    name: str, tiny_world: TinyWorld, folder: Path, one_process: Run
) -> None:
    config = tiny_world.config(folder / f"{name}-bfloat16", "sft", **SECTIONS)
    words = ["training.precision=bfloat16", "training.steps=4"]
    outcome = start_ranks(f"{name}.yaml", 2, folder / f"{name}-bfloat16.log", "train", config, *words)
    assert outcome.codes == [0, 0], outcome.output[-3000:]
    run = config.parent / "run"
    for line, single in zip(metrics(run), one_process.lines, strict=False):
        assert line["loss/total"] != single["loss/total"]
        assert line["loss/total"] == pytest.approx(single["loss/total"], rel=0.02)
    found = weights(run)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in found.values()), "no rounded copies"


@pytest.mark.parametrize("name", ["zero2", "fsdp2"])
def test_a_step_that_is_no_number_is_skipped_by_all_ranks(name: str, tiny_world: TinyWorld, folder: Path) -> None:
    """A learning rate that no weight survives: from the second step on there is no finite loss."""
    config = tiny_world.config(folder / f"{name}-nan", "sft", **SECTIONS)
    words = ["training.steps=4", "optimizer.learning_rate=1e38", "training.max_non_finite_steps=2"]
    outcome = start_ranks(f"{name}.yaml", 2, folder / f"{name}-nan.log", "train", config, *words)
    assert outcome.codes[0] == 2, outcome.output[-3000:]
    assert "step 2: the loss is not finite" in outcome.output
    assert "training.max_non_finite_steps=2" in outcome.output


def test_muon_under_ddp_steps_as_one_process_does(tiny_world: TinyWorld, folder: Path) -> None:
    words = ("optimizer.name=muon", "training.steps=2")
    expected = alone(tiny_world.config(folder / "muon_one", "sft", **SECTIONS), *words)
    config = tiny_world.config(folder / "muon_two", "sft", **SECTIONS)
    outcome = start_ranks("multi_gpu.yaml", 2, folder / "muon.txt", "train", config, *words)
    assert outcome.codes == [0, 0], outcome.output[-3000:]
    run = folder / "muon_two" / "run"
    assert [rank["world_size"] for rank in facts(run)] == [2, 2]
    assert metrics(run)[0]["loss/total"] == pytest.approx(expected.lines[0]["loss/total"], abs=1e-5)
    found = weights(run)
    for name, tensor in expected.weights.items():
        # Muon makes its steps orthogonal in bfloat16, so another order of sums may leave more of a step than with AdamW.
        assert (found[name] - tensor).abs().max() < 5e-2 * LEARNING_RATE, name


@pytest.mark.parametrize(
    ("name", "word", "said"),
    [
        ("fsdp2", "optimizer.name=muon", "optimizer.name is muon, which needs whole weights on a rank; take adamw"),
        ("zero2", "training.loss_kernel=liger", "training.loss_kernel is liger, which needs whole weights on a rank"),
    ],
)
def test_what_needs_whole_weights_is_refused_where_they_are_split(
    name: str, word: str, said: str, tiny_world: TinyWorld, folder: Path
) -> None:
    config = tiny_world.config(folder / word, "sft", **SECTIONS)
    outcome = start_ranks(f"{name}.yaml", 2, folder / f"{word}.txt", "train", config, word)
    assert 2 in outcome.codes, outcome.output[-3000:]
    assert said in outcome.output
