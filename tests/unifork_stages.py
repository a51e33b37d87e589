# SPDX-License-Identifier: Apache-2.0
"""UniFork's stages over the tiny world: two layers of which one is shared, images of 4 x 4 positions of 3 codes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tiny_unifork import save_tiny_rqvae
from tests.world import TinyWorld


@dataclass(frozen=True)
class Recipe:
    """What is peculiar to a stage."""

    stage: str
    freeze: tuple[str, ...] = ()
    samples: tuple[str, ...] = ("t2i", "mmu")
    draw_format: str = "conversation"
    read_format: str = "conversation"


RECIPES = {
    "s1": Recipe(
        "pretrain", (r"^model\.(?!model\.(mm_projector|vision_tower)\.)",), draw_format="bare", read_format="plain"
    ),
    "s2_pretrain": Recipe("pretrain", samples=("t2i", "mmu", "lm"), read_format="plain"),
    "s2_sft": Recipe("sft"),
    "s3_gen": Recipe("sft", (r"^model\.(?!model\.(gen_fork_layers|norm_gen|vision_tower)\.)",), ("t2i",)),
    "s3_und": Recipe("sft", (r"^model\.(?!model\.(layers\.1|norm)\.)",), ("mmu",)),
}


def stage_config(
    world: TinyWorld, folder: Path, name: str, start: Path | None = None, dropout: float = 0.0, **sections: Any
) -> Path:
    """Write the configuration of a stage, one sample of each of its tasks a step, whose output goes to `folder/run`.

    Args:
        start: the run to start from; random weights if not given.
        dropout: in the depth transformer.
    """
    recipe = RECIPES[name]
    head = {"attention_width": 16, "num_heads": 2, "num_layers": 1, "dropout": dropout}
    model = {
        "family": "unifork",
        "image_tokenizer": str(save_tiny_rqvae(folder / "rqvae")),
        "vision_tower": None,
        "fork": {"depth_transformer": head, "draw_format": recipe.draw_format, "read_format": recipe.read_format},
        **({} if start is None else {"initialization": "pretrained", "pretrained": str(start)}),
    }
    training = {
        "samples_per_step": dict.fromkeys(recipe.samples, 1),
        "freeze": list(recipe.freeze),
        **sections.pop("training", {}),
    }
    return world.config(folder, recipe.stage, model=model, training=training, **sections)
