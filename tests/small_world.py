# SPDX-License-Identifier: Apache-2.0
"""A world of shapes that is written in a moment, with a few of its prompts."""

import json
from pathlib import Path

from unigen.data.shapes.export import WorldSize, write_world

SIZE = WorldSize(
    num_images=16,
    num_question_images=2,
    num_text_lines=4,
    num_held_out_questions=30,
    num_held_out_captions=24,
    vocab_size=400,
)
KEPT = 26  # every 26th of 312 prompts: two of each tag, of which one is withheld where any are


def small_world(folder: Path) -> Path:
    """Write a world with 12 prompts, 30 held-out questions and 24 held-out captions."""
    write_world(folder, seed=0, size=SIZE)
    file = folder / "evaluation" / "geneval_shapes.jsonl"
    lines = file.read_text().splitlines()[::KEPT]
    assert {json.loads(line)["seen"] for line in lines} == {True, False}
    file.write_text("\n".join(lines) + "\n")
    return folder
