# SPDX-License-Identifier: Apache-2.0
"""The loop: learning, precision, clipping, non-finite steps, epochs, bad data."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.world import SOURCES, TinyWorld, metrics, train, weights
from unigen.training.stages.pretrain import PretrainStage


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the forward passes whose loss is to be no number; filled by the test."""
    bad: list[int] = []
    calls: list[int] = []
    honest = PretrainStage.forward

    def forward(self: PretrainStage, *arguments: Any) -> Any:
        calls.append(1)
        total, sums = honest(self, *arguments)
        factor = math.nan if len(calls) in bad else 1.0
        return total * factor, {name: value * factor for name, value in sums.items()}

    monkeypatch.setattr(PretrainStage, "forward", forward)
    return bad


def test_training_learns(tiny_world: TinyWorld, tmp_path: Path) -> None:
    assert train(tiny_world.config(tmp_path), "training.steps=30", "optimizer.learning_rate=0.01") == 0
    losses = [line["loss/total"] for line in metrics(tmp_path / "run")]
    assert losses[-1] < losses[0] - 3.0


def test_bfloat16_is_close_to_float32(tiny_world: TinyWorld, tmp_path: Path) -> None:
    for name in ("float32", "bfloat16"):
        assert train(tiny_world.config(tmp_path / name), f"training.precision={name}") == 0
    first, second = (metrics(tmp_path / name / "run")[-1]["loss/total"] for name in ("float32", "bfloat16"))
    assert first != second
    assert second == pytest.approx(first, rel=0.02)


def test_the_norm_that_is_logged_is_that_before_clipping(tiny_world: TinyWorld, tmp_path: Path) -> None:
    for name, clip in (("clipped", 0.001), ("free", 0.0)):
        assert train(tiny_world.config(tmp_path / name), "training.steps=1", f"training.gradient_clipping={clip}") == 0
    first, second = (metrics(tmp_path / name / "run")[0]["training/gradient_norm"] for name in ("clipped", "free"))
    assert first == second > 0.001


def test_a_step_that_is_no_number_is_skipped_counted_and_named(
    tiny_world: TinyWorld, tmp_path: Path, poisoned: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned.append(2)
    config = tiny_world.config(tmp_path, experiment={"checkpoint_every": 1, "keep_last": 0})
    assert train(config) == 0
    printed = capsys.readouterr().out
    assert "step 2: the loss is not finite" in printed
    assert "draw/shapes_short/train-" in printed
    first, second, third = (weights(tmp_path / "run" / f"checkpoint-{step}" / "unwrapped_model") for step in (1, 2, 3))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(second[name], third[name]) for name in first)
    lines = metrics(tmp_path / "run")
    assert [line["training/non_finite_steps"] for line in lines] == [0, 1, 1]
    assert math.isfinite(lines[-1]["loss/total"])


def test_a_skipped_step_does_not_spoil_the_means_of_its_window(
    tiny_world: TinyWorld, tmp_path: Path, poisoned: list[int]
) -> None:
    poisoned.append(3)
    assert train(tiny_world.config(tmp_path, experiment={"log_every": 4}), "training.steps=4") == 0
    assert all(math.isfinite(value) for line in metrics(tmp_path / "run") for value in line.values())


def test_too_many_skipped_steps_end_the_run(
    tiny_world: TinyWorld, tmp_path: Path, poisoned: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned += range(2, 100)
    assert train(tiny_world.config(tmp_path, training={"max_non_finite_steps": 2, "steps": 50})) == 2
    error = capsys.readouterr().err
    assert "step 4" in error
    assert "training.max_non_finite_steps=2" in error


def test_epochs_become_steps(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """64 images at 16 a step: one epoch is 4 steps."""
    config = tiny_world.config(tmp_path, training={"steps": None, "epochs": 0.5, "samples_per_step": {"t2i": 16}})
    assert train(config) == 0
    assert metrics(tmp_path / "run")[-1]["step"] == 2


def test_bad_records_are_counted_in_the_metrics_and_stop_a_run_past_the_limit(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(tiny_world.root, root)
    for number in range(8):
        shard = root / "datasets" / "shapes_short" / f"train-{number:05d}.tar"
        shard.write_bytes(shard.read_bytes()[:1500])
    config = tiny_world.config(
        tmp_path,
        data={"root": str(root), "sources": {"draw": SOURCES["draw"]}},
        training={"samples_per_step": {"t2i": 8}},
    )
    assert train(config, "training.steps=6", "data.max_bad_fraction=0.9") == 0
    assert metrics(tmp_path / "run")[-1]["data/bad/truncated_shard"] > 0
    assert train(config, "training.steps=100", "experiment.resume=false") == 2
    error = capsys.readouterr().err
    assert "data.max_bad_fraction" in error
    assert "train-0000" in error


def test_recompute_is_refused_where_the_model_cannot(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_world.config(tmp_path, "tokenizer", training={"recompute": "full"})) == 2
    assert "training.recompute" in capsys.readouterr().err
