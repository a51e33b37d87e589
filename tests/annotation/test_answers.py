# SPDX-License-Identifier: Apache-2.0
"""Answers of a judge become verdicts; no image and no question is lost."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.annotation.test_questions import Saying
from unigen.annotation.answers import Answers, read_asked_prompts
from unigen.annotation.step import Done, Failed
from unigen.errors import DataError


def questions_file(folder: Path, *lines: tuple[str, str]) -> Path:
    file = folder / "questions.jsonl"
    entries = [{"id": name, "prompt": f"prompt {name}", "question": question} for name, question in lines]
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


def draw(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


def test_every_question_of_every_image_is_asked_the_last_prompt_and_scattered_lines_too(tmp_path: Path) -> None:
    file = questions_file(tmp_path, ("a", "one?"), ("b", "three?"), ("a", "two?"), ("b", " "))
    images = draw(tmp_path / "images", "a_0.png", "a_10.png", "a_2.png", "b_0.png", "c_0.png", "notes.png")
    judge = Saying("Eyes. Yes")
    step = Answers(read_asked_prompts(file), "hash", images, judge)
    results = list(step.work(step.units()))
    lines = [line for result in results if isinstance(result, Done) for line in result.lines]
    assert [line["filename"] for line in lines] == ["a_0.png", "a_2.png", "a_10.png", "b_0.png"]
    assert lines[0] == {
        "id": "a",
        "filename": "a_0.png",
        "prompt": "prompt a",
        "question": ["one?", "two?"],
        "answer": ["yes", "yes"],
        "score": 1.0,
        "unclear": 0,
    }
    assert lines[-1]["question"] == ["three?"]
    assert judge.heard[0] == "one? Please answer yes or no."


def test_a_reply_without_a_verdict_is_a_no_and_counted(tmp_path: Path) -> None:
    step = Answers(
        read_asked_prompts(questions_file(tmp_path, ("a", "one?"))),
        "h",
        draw(tmp_path / "i", "a_0.png"),
        Saying("yesno"),
    )
    (result,) = step.work(step.units())
    assert isinstance(result, Done)
    assert (result.lines[0]["answer"], result.lines[0]["score"], result.lines[0]["unclear"]) == (["no"], 0.0, 1)


def test_a_prompt_without_an_image_fails_by_its_id(tmp_path: Path) -> None:
    file = questions_file(tmp_path, ("a", "one?"), ("lost", "two?"))
    step = Answers(read_asked_prompts(file), "h", draw(tmp_path / "i", "a_0.png"), Saying("yes"))
    failed = [result for result in step.work(step.units()) if isinstance(result, Failed)]
    assert [result.unit.name for result in failed] == ["lost"]


def test_other_images_in_the_folder_are_another_run(tmp_path: Path) -> None:
    prompts = read_asked_prompts(questions_file(tmp_path, ("a", "one?")))
    images = draw(tmp_path / "i", "a_0.png")
    before = Answers(prompts, "h", images, Saying("yes")).identity()
    draw(images, "a_1.png")
    assert Answers(prompts, "h", images, Saying("yes")).identity() != before


def test_question_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no question"):
        read_asked_prompts(questions_file(tmp_path, ("a", " ")))
    file = tmp_path / "two.jsonl"
    file.write_text('{"id": "a", "prompt": "x", "question": "q?"}\n{"id": "a", "prompt": "y", "question": "q?"}\n')
    with pytest.raises(DataError, match="the id a has two prompts, 'x' and 'y'"):
        read_asked_prompts(file)
    with pytest.raises(DataError, match="no folder of images"):
        Answers([], "h", tmp_path / "absent", Saying("yes"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image named"):
        Answers([], "h", tmp_path / "empty", Saying("yes"))


def test_of_others_asks_about_images_of_other_prompts_alone_and_always_the_same(tmp_path: Path) -> None:
    file = questions_file(tmp_path, ("a", "one?"), ("b", "two?"))
    images = draw(tmp_path / "images", "a_0.png", "a_1.png", "b_0.png", "c_0.png")
    steps = [Answers(read_asked_prompts(file), "hash", images, Saying("no"), of_others=2) for _ in range(2)]
    first, second = (step.units() for step in steps)
    assert [unit.name for unit in first] == [unit.name for unit in second]
    assert {unit.name for unit in first[:2]} == {"b_0.a", "c_0.a"}
    assert all(not unit.name.startswith("b_") for unit in first[2:])
    lines = [line for result in steps[0].work(first) if isinstance(result, Done) for line in result.lines]
    assert [line["id"] for line in lines] == ["a", "a", "b", "b"]
    assert {line["filename"] for line in lines[:2]} == {"b_0.png", "c_0.png"}
    own = Answers(read_asked_prompts(file), "hash", images, Saying("no"))
    assert own.identity() != steps[0].identity()
