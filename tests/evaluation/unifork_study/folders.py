# SPDX-License-Identifier: Apache-2.0
"""A study of forks as scripts/reproduce_unifork_shapes.sh leaves it, with scores of our choosing."""

import json
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from tests.tiny_unifork import SMALL_DEPTH, small_language
from unigen.evaluation.items import Item
from unigen.evaluation.records import RecordWriter
from unigen.models.unifork_config import UniForkConfig

STEPS = 40
TAGS = ("colors", "counting")
NUM_PROMPTS = NUM_QUESTIONS = 40
LAYERS: dict[str, tuple[int, int | None, int | None]] = {
    "und_expert": (2, 2, None),
    "gen_expert": (2, None, 2),
    "fully_shared": (4, 0, 0),
    "fork_quarter": (1, 3, 3),
    "fork_half": (2, 2, 2),
    "fork_three_quarters": (3, 1, 1),
}
"""Of each arm: shared layers, and the branches' own."""


def write_arm(
    study: Path,
    name: str,
    *,
    drawn: float = 0.5,
    read: float = 0.5,
    seeds: int = 2,
    budgets: dict[int, float] | None = None,
) -> None:
    """An arm that draws and reads so large a share right, at earlier steps the share that `budgets` gives."""
    shared, reads, draws = LAYERS[name]
    for seed in range(seeds):
        folder = study / name / f"seed-{seed}"
        _write_training(folder / "train", seed, shared, reads, draws)
        shares = {"evaluation": (drawn, read)}
        shares |= {f"evaluation-{step}": (share, share) for step, share in (budgets or {}).items()}
        for evaluation, (right_drawn, right_read) in shares.items():
            if draws is not None:
                _write_drawings(folder / evaluation / "geneval_shapes", right_drawn)
            if reads is not None:
                _write_answers(folder / evaluation / "vqa_shapes", right_read)
            _write_results(folder / evaluation, shared, reads is not None, draws is not None)


def _write_training(folder: Path, seed: int, shared: int, reads: int | None, draws: int | None) -> None:
    config = UniForkConfig(
        llm_config=small_language(),
        depth_transformer=SMALL_DEPTH,
        feature_size=6,
        num_image_codes=16,
        max_text_tokens=30,
        num_shared_layers=shared,
        num_understanding_layers=reads,
        num_generation_layers=draws,
    )
    config.save_pretrained(folder / f"checkpoint-{STEPS}" / "unwrapped_model")
    samples = {"t2i": 16 * (draws is not None), "mmu": 8 * (reads is not None), "lm": 0}
    content: dict[str, Any] = {
        "experiment": {"seed": seed},
        "model": {"image_tokenizer": "tokenizer", "language_model": "shapes-qwen2"},
        "data": {"lanes": 8},
        "optimizer": {"learning_rate": 0.003},
        "schedule": {"name": "cosine"},
        "training": {"steps": STEPS, "samples_per_step": samples, "loss_weights": {}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    losses = {f"loss/{task}": 1.5 for task, count in samples.items() if count}
    lines = [{"step": step, "loss/total": 2.0, **losses, "time/seconds": step / 2} for step in range(10, STEPS + 1, 10)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_drawings(folder: Path, share: float) -> None:
    writer = RecordWriter(folder, 0)
    for prompt in range(NUM_PROMPTS):
        place = Path("images", f"{prompt:05d}", "samples", "00000.png")
        (folder / place).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (prompt, 0, 0)).save(folder / place)
        facts = {"prompt": f"a photo of {prompt}", "path": str(place), "reason": "", "tag": TAGS[prompt % 2]}
        writer.append(Item(prompt, 0, seed=1), {**facts, "correct": _is_right(prompt, share)})


def _write_answers(folder: Path, share: float) -> None:
    writer = RecordWriter(folder, 0)
    for number in range(NUM_QUESTIONS):
        image = f"images/{number // 2:05d}.png"
        writer.append(Item(number, 0, seed=1), {"image": image, "correct": _is_right(number, share)})
        writer.append(Item(number, 1, seed=1), {"image": "images/other.png", "correct": False})


def _is_right(number: int, share: float) -> bool:
    """So many of every ten in turn, spread over both tags."""
    return (number * 3) % 10 < round(10 * share)


def _write_results(folder: Path, shared: int, reads: bool, draws: bool) -> None:
    """With more layers shared the alignment is higher, and falls less after its highest layer, the second."""
    has = {"understanding": reads, "generation": draws}
    values = [0.1, 0.3, 0.38 + shared / 100, 0.35, 0.1 + shared / 20]
    curve = {
        "alignment": values,
        "intervals": [[value - 0.03, value + 0.03] for value in values],
        "permuted": [0.1] * 5,
        "most_permuted": [0.12] * 5,
    }
    alignment = {
        "k": 4,
        "chance": 0.1,
        "num_pairs": 41,
        "ways": {way: curve for way, is_there in has.items() if is_there},
    }
    content: dict[str, Any] = {"alignment": {**alignment, "seconds": 1.0}, "manifest": {}}
    if draws:
        content["geneval_shapes"] = {"ceiling": 0.9, "seconds": 2.0}
    if reads:
        content["vqa_shapes"] = {"majority": 0.4, "seconds": 3.0}
    (folder / "results.json").write_text(json.dumps(content))
