# SPDX-License-Identifier: Apache-2.0
"""A tiny world of shapes with tiny models, and runs of the real command line in it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState
from PIL import Image
from transformers import SiglipConfig, SiglipModel

from tests.tiny import RESOLUTION, tiny_image_tokenizer, tiny_unigen, tiny_vision_model
from unigen.cli.main import main
from unigen.data.shapes.export import WorldSize, write_world

SIZE = WorldSize(
    num_images=64,
    num_question_images=32,
    num_text_lines=64,
    num_held_out_questions=12,
    num_held_out_captions=24,
    vocab_size=400,
)
IMAGE_SOURCE = {"format": "webdataset", "paths": ["shapes_short/train-{00000..00015}.tar"]}
SOURCES = {
    "draw": {**IMAGE_SOURCE, "task": "t2i"},
    "read": {**IMAGE_SOURCE, "task": "mmu"},
    "text": {"format": "parquet", "task": "lm", "paths": ["text"]},
    "prefer": {"format": "preferences", "task": "t2i", "paths": ["dpo/pairs.jsonl"]},
    "ask": {"format": "conversations", "task": "mmu", "paths": ["conversations/shapes.json"]},
}


@dataclass(frozen=True)
class TinyWorld:
    """`datasets/` and `checkpoints/` with an untrained image tokenizer, a vision tower and configurations of both."""

    root: Path

    def config(self, folder: Path, stage: str = "pretrain", **sections: Any) -> Path:
        """Write the configuration of a run into `folder`, whose output goes to `folder/run`; sections are merged in."""
        content = _merge(_defaults(self.root, folder, stage), sections)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stage}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path


def write_tiny_world(root: Path) -> TinyWorld:
    write_world(root / "datasets", seed=0, size=SIZE)
    write_preferences(root / "datasets" / "dpo")
    checkpoints = root / "checkpoints"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny_image_tokenizer().save_pretrained(checkpoints / "tiny-magvitv2")
        tiny_vision_model().save_pretrained(checkpoints / "tiny-siglip-vision")
        SiglipModel(_siglip()).save_pretrained(checkpoints / "tiny-siglip")
    tiny_unigen(checkpoints, reads_features=False).rename(checkpoints / "tiny-unigen")
    (checkpoints / "tiny-qwen2").mkdir()
    (checkpoints / "tiny-qwen2" / "config.json").write_text(json.dumps(QWEN2))
    return TinyWorld(root)


def write_preferences(folder: Path, number: int = 24) -> None:
    """`pairs.jsonl` with images beside it: of red squares, the brighter one is chosen."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for index in range(number):
        record = {"id": f"pair-{index}", "prompt": f"a red square number {index}"}
        for kind, brightness in (("chosen", 255), ("rejected", 64)):
            noise = np.random.default_rng([index, brightness]).integers(0, brightness, (4, 4, 3), dtype=np.uint8)
            record[kind] = f"images/{index}_{kind}.png"
            Image.fromarray(np.kron(noise, np.ones((8, 8, 1), np.uint8))).save(folder / record[kind])
        lines.append(json.dumps(record))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")


QWEN2 = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 400,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def _siglip() -> SiglipConfig:
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {"vocab_size": 420, "max_position_embeddings": 32, "projection_size": 16, "pad_token_id": 0}
    ends = {"bos_token_id": None, "eos_token_id": None}
    return SiglipConfig(
        text_config={**tower, **words, **ends}, vision_config={**tower, "image_size": RESOLUTION, "patch_size": 8}
    )


def _defaults(root: Path, folder: Path, stage: str) -> dict[str, Any]:
    return {
        "stage": stage,
        "experiment": {"name": "test", "output_dir": str(folder / "run"), "log_every": 1},
        "model": {
            "language_model": "tiny-qwen2",
            "initialization": "random",
            "text_tokenizer": str(root / "datasets" / "tokenizer"),
            "image_tokenizer": "tiny-magvitv2",
            "image_resolution": RESOLUTION,
            "max_text_tokens": 256,
            **({"vision_tower": "tiny-siglip-vision"} if stage == "sft" else {}),
            **({"vision_tower": "tiny-siglip"} if stage == "vision" else {}),
            **({"initialization": "pretrained", "pretrained": "tiny-unigen"} if stage == "dpo" else {}),
        },
        "data": {"root": str(root), "num_workers": 0, "lanes": 4, "sources": _sources(stage)},
        "optimizer": {"learning_rate": 0.003},
        "schedule": {"name": "constant"},
        "training": {
            "steps": 3,
            "samples_per_step": {"t2i": 8} if stage in DRAWING_STAGES else {"t2i": 4, "mmu": 2, "lm": 2},
            "precision": "float32",
            "tokens_per_row": 384,
            "rows_per_micro_batch": 8,
        },
    }


def _sources(stage: str) -> dict[str, Any]:
    names = {"tokenizer": ["draw"], "vision": ["draw"], "dpo": ["prefer"], "sft": ["draw", "ask", "text"]}
    return {name: SOURCES[name] for name in names.get(stage, ["draw", "read", "text"])}


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both and key not in WHOLE else value
    return merged


DRAWING_STAGES = ("tokenizer", "vision", "dpo")
WHOLE = ("sources", "samples_per_step")
"""Mappings that are replaced, not merged."""


def train(config: Path, *overrides: str) -> int:
    """`unigen train` in this process."""
    forget_last_run()
    return main(["train", str(config), *overrides])


def forget_last_run() -> None:
    """accelerate keeps the state of the last run in the process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "unigen", *map(str, arguments)]


def quiet_environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "ACCELERATE_USE_CPU": "true"}


def run(*arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    """`python -m unigen ...` as a process of its own."""
    settings: dict[str, Any] = {"env": quiet_environment(), "timeout": 120, **options}
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, **settings)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the newest checkpoint of a run, as they lie in the file."""
    from safetensors.torch import load_file

    from unigen.config.folders import find_model

    (file,) = find_model(folder).glob("*.safetensors")
    return load_file(file)
