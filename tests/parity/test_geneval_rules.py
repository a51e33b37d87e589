# SPDX-License-Identifier: Apache-2.0
"""GenEval's decision agrees with the official one on every recorded line."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from unigen.data.detection import Detection
from unigen.rewards.geneval_rules import judge

DEFAULT_FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "golden"


def golden_lines() -> list[dict[str, Any]]:
    folder = Path(os.environ.get("UNIGEN_GOLDEN", DEFAULT_FOLDER))
    files = sorted(folder.glob("geneval_rules*.jsonl"))
    if not files and "UNIGEN_GOLDEN" not in os.environ and not folder.is_dir():
        pytest.skip(f"no golden numbers at {folder}; set UNIGEN_GOLDEN to their folder")
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert lines, f"{folder} holds no geneval_rules*.jsonl with lines in it"
    return lines


def test_every_recorded_decision_is_reproduced() -> None:
    wrong = []
    for index, line in enumerate(golden_lines()):
        detections = [
            Detection(found["class"], tuple(found["box"]), found["score"], found.get("color"))
            for found in line["detections"]
        ]
        verdict = judge(line["metadata"], detections)
        if verdict.correct is not line["correct"]:
            wrong.append((index, line["metadata"]["prompt"], verdict))
    assert not wrong
