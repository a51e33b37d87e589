# SPDX-License-Identifier: Apache-2.0
"""Two processes on the CPU (gloo) through torchrun do what one does."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.world import TinyWorld, metrics, quiet_environment, train, weights


def _train_on_two(config: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [*launcher, "-m", "unigen", "train", str(config), *overrides],
        env=quiet_environment(),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_two_processes_have_the_losses_of_one(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """Packed into several micro-batches, whose number differs between the ranks, with clipping at work."""
    sections = {
        "training": {
            "steps": 8,
            "samples_per_step": {"t2i": 7, "mmu": 3, "lm": 3},
            "rows_per_micro_batch": 1,
            "gradient_clipping": 0.5,
            "loss_weights": {"mmu": 0.5},
        },
        "data": {"num_workers": 1},
    }
    one, two = (tiny_world.config(tmp_path / name, "sft", **sections) for name in ("one", "two"))
    finished = _train_on_two(two)
    assert finished.returncode == 0, finished.stderr[-2000:]
    ranks = load_file(tmp_path / "two" / "run" / "checkpoint-8" / "state" / "rng.safetensors")
    assert set(ranks) == {"0.cpu", "1.cpu"}, "there were two processes"
    assert train(one) == 0
    found, expected = (metrics(tmp_path / name / "run") for name in ("two", "one"))
    assert len(found) == len(expected) == 8
    for line, single in zip(found, expected, strict=True):
        assert single["training/gradient_norm"] > 0.5, "clipping is at work"
        for name in ("loss/t2i", "loss/mmu", "loss/lm", "loss/total"):
            assert line[name] == pytest.approx(single[name], abs=1e-5), f"{name} of step {line['step']}"
        assert line["training/gradient_norm"] == pytest.approx(single["training/gradient_norm"], rel=1e-3)


def test_a_run_of_one_process_goes_on_with_two(tiny_world: TinyWorld, tmp_path: Path) -> None:
    one, two = (tiny_world.config(tmp_path / name) for name in ("one", "two"))
    assert train(one, "training.steps=4") == 0
    assert train(two, "training.steps=2") == 0
    finished = _train_on_two(two, "training.steps=4")
    assert finished.returncode == 0, finished.stderr[-2000:]
    found, expected = weights(tmp_path / "two" / "run"), weights(tmp_path / "one" / "run")
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < 1e-3 * tensor.abs().max(), name
