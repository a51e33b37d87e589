# SPDX-License-Identifier: Apache-2.0
"""Prompts and questions of DPG-Bench: as published, and with the faults that such files have."""

import json
from pathlib import Path

import pytest

from tests.evaluation.dpg.conftest import PROMPTS, ROWS, write_csv
from unigen.cli.main import main
from unigen.errors import EvaluationError
from unigen.evaluation.dpg.prompts import prompts_hash, read_prompts
from unigen.evaluation.dpg.questions import read_question_file, require_questions

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def test_a_folder_and_a_jsonl_file_are_the_same_prompts(prompts: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"item_id": item, "text": text}) for item, text in PROMPTS.items()]
    (tmp_path / "p.jsonl").write_text("\n".join(lines) + "\n")
    folder, file = read_prompts(prompts), read_prompts(tmp_path / "p.jsonl")
    assert folder == file
    assert [prompt.item_id for prompt in folder] == ["0", "coco1", "parti7"]
    assert prompts_hash(folder) == prompts_hash(file)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the public prompts are not in {DATA}")
def test_the_published_prompts_are_1065_whole_ones() -> None:
    found = read_prompts(DATA / "dpg_bench_prompts.jsonl")
    assert len(found) == 1065
    assert max(len(prompt.text.split()) for prompt in found) == 130


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([{"item_id": "a", "text": " "}], "'a' is empty"),
        ([{"item_id": "a", "text": "x"}, {"item_id": "a", "text": "y"}], "'a' is given twice"),
        ([{"item_id": "../a", "text": "x"}], "cannot name a file"),
    ],
)
def test_prompts_that_cannot_be_used_are_named(entries: list[dict[str, str]], complaint: str, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with pytest.raises(EvaluationError, match=complaint):
        read_prompts(tmp_path / "p.jsonl")


def test_an_empty_folder_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"setup_eval\.sh"):
        read_prompts(tmp_path)


def test_dependencies_are_read_with_care(tmp_path: Path) -> None:
    rows = [("0", "1", "0", "other - text (a (b), c)", "x?"), ("0", "2", "1, 5,right", "global - (style)", "y?")]
    file = read_question_file(write_csv(tmp_path / "q.csv", rows))
    first, second = file.questions
    assert (first.parents, second.parents) == ((), (1, 5))
    assert file.num_malformed == 1
    assert (first.level, first.detail) == ("other", "other - text")
    assert (second.level, second.detail) == ("global", "global -")


def test_a_row_without_a_number_is_named_and_one_without_a_question_left_out(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="line 2: proposition_id is 'x'"):
        read_question_file(write_csv(tmp_path / "q.csv", [("0", "x", "0", "a (x)", "Is it?")]))
    file = read_question_file(
        write_csv(tmp_path / "q.csv", [("0", "1", "0", "a (x)", " "), ("0", "2", "0", "a (x)", "?")])
    )
    assert ([question.number for question in file.questions], file.num_malformed) == ([2], 1)


def test_a_file_without_a_column_or_a_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("item_id,text\n0,x\n")
    with pytest.raises(EvaluationError, match="no column 'proposition_id'"):
        read_question_file(tmp_path / "q.csv")
    with pytest.raises(EvaluationError, match="holds no question"):
        read_question_file(write_csv(tmp_path / "q.csv", []))
    with pytest.raises(EvaluationError, match="cannot read"):
        read_question_file(tmp_path / "none.csv")


def test_prompts_without_questions_are_counted(questions: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no question for 1 of 2 prompts \(first new\)"):
        require_questions(read_question_file(questions), ["0", "new"], questions)


def test_questions_are_exported_one_line_a_prompt(questions: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "dpg_bench_questions.jsonl"
    assert main(["convert", "dpg-questions", str(questions), str(output)]) == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["item_id"] for line in lines] == ["parti7", "0", "coco1"]
    assert lines[2] == {
        "item_id": "coco1",
        "prompt": PROMPTS["coco1"],
        "questions": [question for item, *_, question in ROWS if item == "coco1"],
    }
