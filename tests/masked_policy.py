# SPDX-License-Identifier: Apache-2.0
"""The stage grpo_generation of a tiny UniGen: drawings of prompts, rewarded for being red."""

from pathlib import Path
from typing import Any

from tests.world import TinyWorld

DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {"initialization": "pretrained", "pretrained": "tiny-unigen"},
    "data": {"sources": {"asked": {"format": "prompts", "task": "t2i", "paths": ["prompts/train.jsonl"]}}},
    "training": {"samples_per_step": {"t2i": 2}},
    "grpo": {
        "rewards": {"redness": {"kind": "callable", "function": "tests.toy_rewards:redness"}},
        "group_size": 4,
        "clip_range": 0.2,
        "masked": {"steps": 4},
    },
}


def policy_config(world: TinyWorld, folder: Path, **sections: dict[str, Any]) -> Path:
    """Write the configuration of a run into `folder`, whose output goes to `folder/run`."""
    names = {**DEFAULTS, **sections}
    merged = {name: {**DEFAULTS.get(name, {}), **sections.get(name, {})} for name in names}
    return world.config(folder, "grpo_generation", **merged)
