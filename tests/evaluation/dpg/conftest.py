# SPDX-License-Identifier: Apache-2.0
"""A small set of prompts and questions of DPG-Bench's schema, with the first prompt as in the published file."""

import csv
from pathlib import Path

import pytest

COLUMNS = [
    "item_id",
    "text",
    "keywords",
    "proposition_id",
    "dependency",
    "category_broad",
    "category_detailed",
    "tuple",
    "question_natural_language",
]
PROMPTS = {"parti7": "a red cube on a table", "0": "two dogs", "coco1": "a cat in a hat"}
ROWS = [
    ("parti7", "1", "0", "entity - whole (cube)", "Is there a cube?"),
    ("parti7", "2", "1", "attribute - color (cube, red)", "Is the cube red?"),
    ("0", "1", "0", "entity - whole (dogs)", "Are there dogs?"),
    ("0", "2", "1", "other - count (dogs, ==2)", "Are there two dogs?"),
    ("coco1", "1", "0", "entity - whole (cat)", "Is there a cat?"),
    ("coco1", "2", "0", "entity - whole (hat)", "Is there a hat?"),
    ("coco1", "3", "1,2", "relation - spatial (cat, hat, in)", "Is the cat in the hat?"),
]


def write_csv(path: Path, rows: list[tuple[str, str, str, str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for item_id, number, dependency, kind, question in rows:
            writer.writerow([item_id, PROMPTS.get(item_id, ""), "", number, dependency, "", "", kind, question])
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    folder.mkdir()
    for item_id, text in PROMPTS.items():
        (folder / f"{item_id}.txt").write_text(text + "\n")
    return folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "dpg_bench.csv", ROWS)
