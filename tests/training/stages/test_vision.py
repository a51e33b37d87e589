# SPDX-License-Identifier: Apache-2.0
"""The vision tower's stage: a SigLIP that learns and that a later stage reads through."""

import json
from pathlib import Path

import torch
from PIL import Image

from tests.world import TinyWorld, metrics, train
from unigen.models.vision import VisionInput, VisionTower


def test_images_and_captions_find_each_other(tiny_world: TinyWorld, tmp_path: Path) -> None:
    assert train(tiny_world.config(tmp_path, "vision", training={"steps": 30})) == 0
    losses = [line["loss/total"] for line in metrics(tmp_path / "run")]
    assert losses[-1] < 0.8 * losses[0]


def test_its_folder_is_a_vision_tower_that_a_later_stage_reads_through(tiny_world: TinyWorld, tmp_path: Path) -> None:
    assert train(tiny_world.config(tmp_path / "vision", "vision")) == 0
    run = tmp_path / "vision" / "run"
    tower = VisionTower.load(run / "checkpoint-3" / "unwrapped_model")
    features = tower.features(VisionInput.stack([tower.preprocess(Image.new("RGB", (32, 32)))]))
    assert features.shape == (1, 16, 16)
    assert bool(torch.isfinite(features).all())
    assert train(tiny_world.config(tmp_path / "sft", "sft", model={"vision_tower": str(run)})) == 0
    saved = tmp_path / "sft" / "run" / "checkpoint-3" / "unwrapped_model" / "config.json"
    assert json.loads(saved.read_text())["vision_tower"] == "../../../../vision/run/checkpoint-3/unwrapped_model"
