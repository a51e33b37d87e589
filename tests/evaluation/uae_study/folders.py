# SPDX-License-Identifier: Apache-2.0
"""A study of UAE as scripts/reproduce_uae_shapes.sh leaves it, with scores, captions and curves of our choosing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from unigen.data.json_files import write_lines
from unigen.data.shapes.captions import long_caption
from unigen.data.shapes.render import render
from unigen.data.shapes.scene import TAGS, sample_any_scene

STEPS = 40
NUM_IMAGES = 30
SECONDS = 90.0
SCORING_WEIGHTS = "5c0"
WRONG = "There is one object, a white circle."
SCORES = {"before": 0.70, "after_understanding": 0.78, "after_generation": 0.84, "control": 0.70}
TRUE_SHARES = {"before": 0.5, "after_understanding": 0.8, "after_generation": 0.8, "control": 0.5}
"""Of the captions, how many are the true ones; the others are WRONG."""


def write_study(study: Path, scores: Mapping[str, float] = SCORES, seeds: int = 2) -> None:
    """A whole study whose arms score so much in the mean, a little more or less on each image."""
    (study / "started").parent.mkdir(parents=True, exist_ok=True)
    (study / "started").write_text("0")
    originals = _write_world(study / "datasets" / "evaluation" / "captioned")
    for part in ("reward_encoder", "uae_coldstart"):
        write_run(study / part, {"loss/total": [1.0, 0.5]}, config={"training": {"steps": STEPS}})
    (study / "reward_encoder" / "config.json").write_text("{}")
    (study / "reward_encoder" / "model.safetensors").write_bytes(b"weights of the reward")
    write_evaluation(study / "evaluation" / "before", originals, "before", scores["before"], 0)
    for seed in range(seeds):
        own = study / f"seed-{seed}"
        write_policy_runs(own, seed)
        for name in ("after_understanding", "after_generation", "control"):
            write_evaluation(own / "evaluation" / name, originals, name, scores[name], seed)


def write_policy_runs(own: Path, seed: int) -> None:
    """The two stages, whose rewards rise, and their controls, whose rewards do not."""
    lengths = {"caption/length": [20.0, 21.0, 22.0, 23.0]}
    flat, rising = {"reward/total": [0.6, 0.6, 0.6, 0.6]}, {"reward/total": [0.6, 0.7, 0.75, 0.8]}
    for name, curves in (
        ("understanding", rising | lengths),
        ("generation", rising),
        ("control_understanding", flat | lengths),
        ("control_generation", flat),
    ):
        config = policy_config(own.parent, seed, is_control=name.startswith("control"))
        write_run(own / name, curves, config)


def policy_config(study: Path, seed: int, *, is_control: bool) -> dict[str, Any]:
    rewards = {"likeness": {"kind": "siglip", "model": str(study / "reward_encoder")}}
    return {
        "experiment": {"seed": seed},
        "data": {"root": str(study)},
        "training": {"steps": STEPS, "samples_per_step": {"mmu": 8}},
        "optimizer": {"learning_rate": 1e-4},
        "schedule": {"name": "constant"},
        "grpo": {"group_size": 8, "shuffle_advantages": is_control, "rewards": rewards},
    }


def write_run(folder: Path, curves: Mapping[str, Sequence[float]], config: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    (longest,) = {len(values) for values in curves.values()}
    lines = [
        {
            "step": STEPS * (place + 1) // longest,
            "time/seconds": SECONDS * (place + 1) / longest,
            **{name: values[place] for name, values in curves.items()},
        }
        for place in range(longest)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_evaluation(folder: Path, originals: Sequence[Path], name: str, score: float, seed: int) -> None:
    """Reconstructions, which are the originals themselves, with scores around `score`."""
    rng = np.random.default_rng([seed, *name.encode()])
    drawings = folder / "unified_bench" / "images"
    drawings.mkdir(parents=True)
    lines = []
    for number, original in enumerate(originals):
        (drawings / original.name).write_bytes(original.read_bytes())
        is_true = (number * 7) % 10 < round(10 * TRUE_SHARES[name])
        own = 0.05 * np.sin(number) + 0.002 * rng.standard_normal()
        lines.append(
            {
                "name": original.name,
                "image": str(original),
                "caption": original.with_suffix(".txt").read_text() if is_true else WRONG,
                "reconstruction": str(drawings / original.name),
                "similarity": {"siglip": score + own},
            }
        )
    write_lines(lines, folder / "unified_bench" / "images.jsonl")
    found = {"seconds": 3.0, "encoders": {"siglip": {"weights": SCORING_WEIGHTS}}}
    (folder / "results.json").write_text(json.dumps({"unified_bench": found, "manifest": {}}))


def _write_world(folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        scene = sample_any_scene(TAGS[number % len(TAGS)], rng)
        render(scene, 32).save(folder / f"{number:05d}.png")
        (folder / f"{number:05d}.txt").write_text(long_caption(scene, rng))
    return sorted(folder.glob("*.png"))
