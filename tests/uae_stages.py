# SPDX-License-Identifier: Apache-2.0
"""Runs of UAE's stages on a tiny model in the tiny world."""

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from tests.tiny_uae import RESOLUTION, tiny_uae
from tests.world import SOURCES, TinyWorld, metrics, train, weights

STEPS = 4


def uae_config(world: TinyWorld, folder: Path, stage: str, **sections: Any) -> Path:
    """Write the configuration of a run that starts from a tiny UAE, whose output goes to `folder/run`."""
    start = world.root / "checkpoints" / "tiny-uae"
    if not start.is_dir():
        tiny_uae(start)
    names = {"sft": ("ask", "read"), "grpo_understanding": ("read",)}.get(stage, ("draw",))
    source = {name: SOURCES[name] for name in names}
    samples = {"t2i": 4} if names == ("draw",) else {"mmu": 4}
    training = {"samples_per_step": samples, "rows_per_micro_batch": 2, "steps": STEPS}
    model = {
        "family": "uae",
        "initialization": "pretrained",
        "pretrained": "tiny-uae",
        "text_tokenizer": None,
        "image_resolution": RESOLUTION,
        "image_tokenizer": "magvitv2",
        "vision_tower": None,
    }
    return world.config(
        folder,
        stage,
        **{
            **sections,
            "experiment": {"checkpoint_every": 2, "keep_last": 0, **sections.get("experiment", {})},
            "model": {**model, **sections.get("model", {})},
            "data": {**sections.get("data", {}), "sources": source},
            "training": {**training, **sections.get("training", {})},
        },
    )


def stopped_and_gone_on(config: Path, folder: Path, *words: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of a run in one go, and of the same run that goes on from the middle."""
    assert train(config, f"experiment.output_dir={folder / 'whole'}", *words) == 0
    shutil.copytree(folder / "whole", folder / "again")
    shutil.rmtree(folder / "again" / f"checkpoint-{STEPS}")
    assert train(config, f"experiment.output_dir={folder / 'again'}", *words) == 0
    assert [line["step"] for line in metrics(folder / "again")][-1] == STEPS
    return weights(folder / "whole"), weights(folder / "again")
