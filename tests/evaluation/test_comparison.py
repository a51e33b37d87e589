# SPDX-License-Identifier: Apache-2.0
"""Evaluations side by side: names, table, page, and what is partial or failed."""

import json
from pathlib import Path
from typing import Any

import pytest

from unigen.cli.main import main
from unigen.errors import EvaluationError
from unigen.evaluation.comparison import labels_of, markdown_table, write_comparison

FIRST: dict[str, Any] = {
    "geneval": {
        "overall": 0.5,
        "interval": [0.45, 0.55],
        "tags": {"colors": 0.75},
        "tag_intervals": {"colors": [0.7, 0.8]},
    },
    "dpg": {
        "overall": 80.125,
        "interval": [79.0, 81.0],
        "levels": {"entity": 90.0},
        "fixed": {"overall": 80.5, "interval": [79.5, 81.5]},
        "num_prompts_beyond_row": 2,
    },
    "mjhq_fid": {"overall": 9.5, "categories": {"food": 20.25}, "num_images": 2000, "is_rank_deficient": True},
    "manifest": {"model": {"model": "a"}, "seed": 0, "num_images": 4, "drawing": {"steps": 16}},
}
SECOND: dict[str, Any] = {
    "geneval": {**FIRST["geneval"], "overall": 0.75, "partial": True},
    "failed": {"dpg": ["dpg: 3 answers are missing", "more"]},
    "manifest": {},
}


def test_a_model_is_called_by_the_end_of_its_path() -> None:
    assert labels_of(["out/sft/checkpoint-100/unwrapped_model"]) == ["checkpoint-100"]
    assert labels_of(["out/sft/checkpoint-9", "out/dpo/checkpoint-9", "x"]) == [
        "sft-checkpoint-9",
        "dpo-checkpoint-9",
        "x",
    ]
    with pytest.raises(EvaluationError, match="given twice"):
        labels_of(["out/sft", "out/sft"])


def test_the_table_has_a_column_an_evaluation_and_says_what_lacks() -> None:
    lines = markdown_table({"sft": FIRST, "dpo": SECOND}).splitlines()
    assert lines[0] == "| score | sft | dpo |"
    assert "| GenEval, overall | 0.500 [0.450 – 0.550] | 0.750 [0.450 – 0.550] |" in lines
    assert "| DPG-Bench (dpg), overall | 80.12 / 100 [79.00 – 81.00] | – |" in lines
    assert "| FID (mjhq_fid), food | 20.250 | – |" in lines
    assert "dpo: geneval is partial: items are missing from it." in lines
    assert "dpo: dpg failed (2): dpg: 3 answers are missing." in lines
    assert "sft: mjhq_fid is over fewer images than features, whose distance is too large." in lines
    assert "sft: dpg has 2 prompts longer than the rows that the model was trained on." in lines
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_the_page_is_self_contained_and_escapes_what_models_are_called(tmp_path: Path) -> None:
    page = write_comparison({"<b>sft": FIRST, "dpo": SECOND}, tmp_path).read_text()
    assert "&lt;b&gt;sft" in page
    assert "<b>sft" not in page
    assert "0.750" in page
    assert "is partial" in page
    assert "dpg failed (2)" in page
    assert "http" not in page
    assert json.loads((tmp_path / "results.json").read_text())["checkpoints"]["dpo"] == SECOND


def test_report_puts_evaluations_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["report", "--output", str(tmp_path / "both")]
    for name, results in (("sft", FIRST), ("dpo", SECOND)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
        arguments += ["--evaluation", str(tmp_path / name)]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"checkpoints": {"sft": FIRST, "dpo": SECOND}}
    assert sorted(file.name for file in (tmp_path / "both").iterdir()) == ["report.html", "results.json", "results.md"]
    assert main([*arguments, "--evaluation", str(tmp_path)]) == 2
    assert "has no results.json" in capsys.readouterr().err
    assert main(["report"]) == 2
    assert main(["report", "--evaluation", str(tmp_path / "sft")]) == 2
