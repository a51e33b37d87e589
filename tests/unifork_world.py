# SPDX-License-Identifier: Apache-2.0
"""What the recipes of configs/unifork_0_5b want, in small: data at the paths that they name, tiny models under their names."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2ForCausalLM

from tests.tiny_unifork import save_tiny_rqvae, small_language
from unigen.config.load import load_config
from unigen.data.shapes.tokenizer import train_tokenizer

RECIPES = Path(__file__).resolve().parents[1] / "configs" / "unifork_0_5b"
ORIGINS = {
    "s1_imagenet": None,
    "s1_laion_coyo": "s1_imagenet",
    "s2_pretrain": "s1_laion_coyo",
    "s2_sft": "s2_pretrain",
    "s3_gen": "s2_sft",
    "s3_und": "s2_sft",
}
"""The stages, each with the one that it starts from."""
NUM_RECORDS = 12
NUM_LAYERS = 24
"""As many as Qwen2.5-0.5B has, so that what the recipes say of layers holds."""


@dataclass(frozen=True)
class UniForkWorld:
    """A `data.root` for all the recipes."""

    root: Path

    def overrides(self, stage: str, runs: Path, steps: int) -> list[str]:
        """What makes the recipe of a stage small: 32 pixels, few samples, the language model's width in the depth transformer.

        Its run goes to `runs/<stage>` and starts from the stage before it there.
        """
        origin = ORIGINS[stage]
        start = [] if origin is None else [f"model.pretrained={runs / origin}"]
        tasks = load_config(RECIPES / f"{stage}.yaml").training.samples_per_step
        return [
            f"experiment.output_dir={runs / stage}",
            *start,
            *self.common(),
            *(f"training.samples_per_step.{task}=4" for task in tasks),
            f"training.steps={steps}",
        ]

    def common(self) -> list[str]:
        """Those that are the same for all stages."""
        return [
            f"data.root={self.root}",
            "data.lanes=4",
            "data.num_workers=0",
            "experiment.trackers=[]",
            "experiment.log_every=1",
            "model.image_resolution=32",
            "model.max_text_tokens=256",
            "model.fork.depth_transformer={attention_width: 16, num_heads: 2, num_layers: 1}",
            "training.precision=float32",
            "training.tokens_per_row=548",
        ]


def write_unifork_world(root: Path) -> UniForkWorld:
    datasets = root / "datasets"
    write_classes(datasets / "imagenet" / "train")
    for name in ("laion", "unifork/pretrain_draw", "unifork/sft_draw"):
        write_captions(datasets / name)
    write_conversations(datasets / "coyo")
    for name in ("pretrain_read", "sft_read"):
        write_conversations(datasets / "unifork" / name)
        places = {"annotation": f"{name}/annotations/part-0.jsonl", "root": f"{name}/images", "repeat_time": 1}
        (datasets / "unifork" / f"{name}.json").write_text(json.dumps({"shapes": places}))
    write_models(root / "checkpoints")
    return UniForkWorld(root)


def write_models(checkpoints: Path) -> None:
    tokenizer = train_tokenizer(400)
    language = small_language(vocab_size=len(tokenizer), num_hidden_layers=NUM_LAYERS, initializer_range=0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2ForCausalLM(language).save_pretrained(checkpoints / "Qwen2.5-0.5B")
    tokenizer.save_pretrained(checkpoints / "Qwen2.5-0.5B")
    save_tiny_rqvae(checkpoints / "vila-u-7b-256" / "vision_tower")


def write_classes(folder: Path) -> None:
    """An ImageFolder of two of ImageNet's classes, and their names beside it."""
    names = {"n01440764": "tench", "n01443537": "goldfish"}
    for name in names:
        for _ in _images(folder / name):
            pass
    (folder.parent / "class_names.txt").write_text("\n".join(names.values()) + "\n")


def write_captions(folder: Path, caption: Callable[[int], str] = "a square, {}.png".format) -> None:
    """`annotations/part-0.jsonl` of {image, caption}, and `images`; line n is about `n.png`."""
    records = [{"image": name, "caption": caption(number)} for number, name in enumerate(_images(folder / "images"))]
    _write_lines(folder / "annotations" / "part-0.jsonl", records)


def write_conversations(folder: Path) -> None:
    """`annotations/part-0.jsonl` of conversations of two turns, and `images`."""
    turns = [("human", "<image>\nwhat is this?"), ("gpt", "a square"), ("human", "how many?"), ("gpt", "one")]
    conversation = [{"from": name, "value": value} for name, value in turns]
    records = [{"image": name, "conversations": conversation} for name in _images(folder / "images")]
    _write_lines(folder / "annotations" / "part-0.jsonl", records)


def _images(folder: Path) -> Iterator[str]:
    folder.mkdir(parents=True)
    for index in range(NUM_RECORDS):
        pixels = np.random.default_rng(index).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(np.kron(pixels, np.ones((8, 8, 1), np.uint8))).save(folder / f"{index}.png")
        yield f"{index}.png"


def _write_lines(file: Path, records: Sequence[Mapping[str, object]]) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
