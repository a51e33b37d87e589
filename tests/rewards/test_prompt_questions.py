# SPDX-License-Identifier: Apache-2.0
"""Questions that follow from a prompt, for each kind of GenEval's and from files."""

import json
from pathlib import Path

import pytest

from unigen.data.shapes.prompts import geneval_prompts
from unigen.errors import DataError
from unigen.rewards.prompt_questions import read_item_questions, rule_questions

REAL = Path(__file__).resolve().parents[3] / "shared/data/geneval_evaluation_metadata.jsonl"
NUM_QUESTIONS = {"single_object": 1, "two_object": 2, "counting": 1, "colors": 2, "position": 3, "color_attr": 2}


@pytest.mark.parametrize(
    ("prompt", "questions"),
    [
        ("a photo of a bench", ["is there a bench?"]),
        ("a photo of an orange", ["is there an orange?"]),
        ("a picture showing a dog and an apple.", ["is there a dog?", "is there an apple?"]),
        ("a photo of four vases", ["are there exactly four vases?"]),
        ("a photo of a pink parking meter", ["is there a parking meter?", "is the parking meter pink?"]),
        ("a photo of a yellow orange", ["is there an orange?", "is the orange yellow?"]),
        (
            "a photo of a dog left of an airplane",
            ["is there a dog?", "is there an airplane?", "is the dog left of the airplane?"],
        ),
        (
            "a photo of a green bus and an orange tv remote",
            ["is there a green bus?", "is there an orange tv remote?"],
        ),
        ("A photo of a cat", ["is there a cat?"]),
    ],
)
def test_questions_follow_from_each_kind_of_prompt(prompt: str, questions: list[str]) -> None:
    assert rule_questions(prompt) == questions


@pytest.mark.parametrize("prompt", ["", "sunset over the sea", "a photo of cats", "five"])
def test_other_prompts_have_none(prompt: str) -> None:
    assert rule_questions(prompt) == []


def check(entries: list[dict]) -> None:
    wrong = [
        entry["prompt"] for entry in entries if len(rule_questions(entry["prompt"])) != NUM_QUESTIONS[entry["tag"]]
    ]
    assert wrong == []


def test_every_prompt_of_the_world_of_shapes_has_its_questions() -> None:
    check(geneval_prompts())


@pytest.mark.skipif(not REAL.is_file(), reason=f"GenEval's own prompts are not at {REAL}")
def test_every_prompt_of_geneval_has_its_questions() -> None:
    check([json.loads(line) for line in REAL.read_text().splitlines()])


def test_a_file_gives_questions_by_item(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    lines = [{"item_id": "a", "question": "1?"}, {"item_id": "b", "questions": ["2?", "3?"]}]
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"item_id": "a", "question": "4?"}]))
    assert read_item_questions(file) == {"a": ["1?", "4?"], "b": ["2?", "3?"]}


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"item_id": "a"}', '{"question": "b?"}'])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"item_id": "a", "question": "1?"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"questions.jsonl, line 2"):
        read_item_questions(file)
    with pytest.raises(DataError, match=r"none\.jsonl"):
        read_item_questions(tmp_path / "none.jsonl")
