# SPDX-License-Identifier: Apache-2.0
"""The stages of single images on two processes (gloo): an image is compared with the captions of both, and blanks count for
nothing."""

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.ranks import start_ranks
from tests.training.stages.test_contrast import contrast_config
from tests.world import TinyWorld, metrics

STEPS = 4


def single_image_config(world: TinyWorld, folder: Path, stage: str, training: dict[str, Any]) -> Path:
    training = {"steps": STEPS, **training}
    if stage.startswith("vision"):
        loss = "softmax" if stage == "vision by softmax" else "sigmoid"
        return world.config(folder, "vision", training=training, vision_stage={"loss": loss})
    return contrast_config(world, folder, training=training)


def assert_two_are_as_one(world: TinyWorld, folder: Path, stage: str, words: list[str], **training: Any) -> None:
    runs = {}
    for name, backend, number in (("one", "single_process.yaml", 1), ("two", "multi_gpu.yaml", 2)):
        config = single_image_config(world, folder / name, stage, training)
        outcome = start_ranks(backend, number, folder / f"{name}.txt", "train", config, *words)
        assert outcome.codes == [0] * number, outcome.output[-3000:]
        runs[name] = folder / name / "run"
    for line, expected in zip(metrics(runs["two"]), metrics(runs["one"]), strict=True):
        for loss in [name for name in expected if name.startswith("loss/")]:
            assert line[loss] == pytest.approx(expected[loss], rel=1e-4), f"{loss} of step {line['step']}"
        assert line["training/gradient_norm"] == pytest.approx(expected["training/gradient_norm"], rel=1e-3)


@pytest.mark.parametrize("stage", ["tokenizer", "vision", "vision by softmax"])
def test_an_image_is_compared_with_the_captions_of_all_processes(
    stage: str, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    """Seven images: four on one process, three on the other."""
    assert_two_are_as_one(tiny_world, tmp_path, stage, [], samples_per_step={"t2i": 7}, rows_per_micro_batch=8)


def test_the_blank_image_of_a_process_with_fewer_batches_counts_for_nothing(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    """Five images, two a batch: two batches on one process, one and a blank on the other."""
    words = ["tokenizer_stage.contrastive_weight=0"]
    assert_two_are_as_one(tiny_world, tmp_path, "tokenizer", words, samples_per_step={"t2i": 5}, rows_per_micro_batch=2)
