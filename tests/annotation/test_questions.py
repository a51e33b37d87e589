# SPDX-License-Identifier: Apache-2.0
"""Replies become questions, whatever a judge puts around them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import pytest

from unigen.annotation.judges.judge import Reply, Request
from unigen.annotation.prompts import Prompt
from unigen.annotation.questions import JudgedQuestions, RuleQuestions, parse_questions
from unigen.annotation.step import Done, Failed
from unigen.rewards.rating_text import parse_think
from unigen.sequence.templates.rating import think_answer

K = TypeVar("K")


class Saying:
    """A judge that says the same to everything."""

    def __init__(self, text: str) -> None:
        self.text, self.heard = text, list[str]()

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "saying"}

    def notes(self) -> Mapping[str, Any]:
        return {}

    def replies(self, requests: Iterable[tuple[K, Request]]) -> Iterator[tuple[K, Reply]]:
        for key, request in requests:
            self.heard.append(request.text)
            yield key, Reply(self.text)


@pytest.mark.parametrize(
    ("reply", "questions"),
    [
        ("Is there a dog?; Is it brown?", ["Is there a dog?", "Is it brown?"]),
        ("Is there a dog?;; ;Is it brown? ;", ["Is there a dog?", "Is it brown?"]),
        (
            "Questions: 1. Is there a dog?\n2) is it brown\n- is it big.",
            ["Is there a dog?", "is it brown?", "is it big?"],
        ),
        ("Is there a dog?; Is there a dog?", ["Is there a dog?"]),
        ("Is there a dog? Is it brown?", ["Is there a dog?", "Is it brown?"]),
        ("3 dogs there?", ["3 dogs there?"]),
        (" ;\n ; ", []),
        ("", []),
    ],
)
def test_questions_are_split_cleaned_and_never_empty(reply: str, questions: list[str]) -> None:
    assert parse_questions(reply) == questions


def test_what_is_parsed_can_be_told_from_the_answers_written_after_it() -> None:
    questions = parse_questions("Is there a dog: or a cat; Is it 2. big")
    written = parse_think(think_answer(questions, [True, False]))
    assert [(one.question, one.is_yes) for one in written.verdicts] == [(questions[0], True), (questions[1], False)]


def test_a_judge_is_shown_the_prompt_and_a_reply_without_a_question_fails_the_prompt_alone() -> None:
    prompts = [Prompt("a", "a {dog}"), Prompt("b", "a cat")]
    judge = Saying("Is it there?; Is it big?")
    step = JudgedQuestions(prompts, "hash", judge)
    results = list(step.work(step.units()))
    assert next(result.lines for result in results if isinstance(result, Done)) == [
        {"id": "a", "prompt": "a {dog}", "question": "Is it there?"},
        {"id": "a", "prompt": "a {dog}", "question": "Is it big?"},
    ]
    assert judge.heard[0].endswith("Description: a {dog}\nQuestions:")
    silent = JudgedQuestions(prompts, "hash", Saying(" ; "))
    failed = list(silent.work(silent.units()))
    assert [isinstance(result, Failed) for result in failed] == [True, True]


def test_rule_questions_carry_what_they_check_and_an_entry_without_a_scene_fails_alone() -> None:
    scene = {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}]}
    step = RuleQuestions([Prompt("a", "a red dog", scene), Prompt("b", "a cat", {"prompt": "a cat"})], "hash")
    done, failed = step.work(step.units())
    assert isinstance(done, Done)
    assert [line["check"]["include"][0].get("color") for line in done.lines] == [None, "red"]
    assert isinstance(failed, Failed)
    assert "name a judge instead" in failed.reason
