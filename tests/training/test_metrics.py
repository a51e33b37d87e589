# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl: one line per logged step, valid after a crash and a resume."""

import json
from pathlib import Path

from tests.world import TinyWorld, metrics, train


def test_every_logged_step_has_one_line_with_losses_and_speed(tiny_world: TinyWorld, tmp_path: Path) -> None:
    assert train(tiny_world.config(tmp_path, experiment={"log_every": 2}), "training.steps=5") == 0
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 4, 5]
    wanted = {"loss/t2i", "loss/mmu", "loss/lm", "loss/total", "learning_rate", "training/gradient_norm"}
    speed = {"throughput/tokens_per_second", "throughput/images_per_second", "throughput/data_wait_fraction"}
    assert wanted | speed <= lines[-1].keys()
    assert lines[-1]["training/samples"] == 5 * 8


def test_the_total_is_the_weighted_sum_of_the_tasks_losses(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path, training={"loss_weights": {"t2i": 2.0, "mmu": 0.5}})
    assert train(config) == 0
    for line in metrics(tmp_path / "run"):
        expected = 2.0 * line["loss/t2i"] + 0.5 * line["loss/mmu"] + line["loss/lm"]
        assert abs(line["loss/total"] - expected) < 1e-5


def test_lines_of_steps_that_are_done_again_and_a_torn_line_are_dropped(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path)
    assert train(config, "training.steps=2") == 0
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "loss/total": -1.0}) + "\n" + '{"step": 4, "lo')
    assert train(config, "training.steps=4") == 0
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[2]["loss/total"] > 0


def test_tensorboard_gets_the_same_numbers(tiny_world: TinyWorld, tmp_path: Path) -> None:
    assert train(tiny_world.config(tmp_path, experiment={"trackers": ["tensorboard"]})) == 0
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))
