# SPDX-License-Identifier: Apache-2.0
"""The vision tower's stage: a SigLIP that learns and that a later stage reads through."""

import json
import math
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

from tests.world import TinyWorld, metrics, train
from unigen.models.vision import VisionInput, VisionTower
from unigen.training.stages.contrast import softmax_losses


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


def test_by_softmax_images_and_captions_find_each_other_too(tiny_world: TinyWorld, tmp_path: Path) -> None:
    batch = {"samples_per_step": {"t2i": 32}, "rows_per_micro_batch": 32}
    sections: dict[str, Any] = {
        "training": {"steps": 80, **batch},
        "optimizer": {"name": "muon", "learning_rate": 0.003},
    }
    assert train(tiny_world.config(tmp_path, "vision", vision_stage={"loss": "softmax"}, **sections)) == 0
    losses = [line["loss/total"] for line in metrics(tmp_path / "run")]
    assert fmean(losses[-10:]) < math.log(32) - 1  # what guessing among the captions of a step costs


def test_the_softmax_loss_asks_which_caption_is_the_images_and_which_image_is_the_captions() -> None:
    image_BD, text_BD = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    batch = SimpleNamespace(keys=["a", "b", ""])
    found_B = softmax_losses(image_BD, text_BD, batch, torch.tensor(0.7))  # type: ignore[arg-type]
    logits = [
        [math.exp(0.7) * float(torch.cosine_similarity(image, text, dim=0)) for text in text_BD[:2]]
        for image in image_BD[:2]
    ]
    columns = list(zip(*logits, strict=True))
    terms = [math.log(sum(map(math.exp, row))) - row[own] for rows in (logits, columns) for own, row in enumerate(rows)]
    torch.testing.assert_close(found_B, torch.full((3,), sum(terms) / 4))
