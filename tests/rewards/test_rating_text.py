# SPDX-License-Identifier: Apache-2.0
"""How ratings are asked for and read, malformed answers included."""

import pytest

from unigen.rewards.rating_text import (
    Verdict,
    Verdicts,
    outcome_prompt,
    parse_leading,
    parse_think,
    rule_prompt,
    think_prompt,
    think_so_far,
)
from unigen.sequence.templates.rating import RATING_PROMPTS, think_answer

QUESTIONS = ["Is there a cat?", "Are there exactly two dogs?"]


def read(text: str) -> list[tuple[str, bool]]:
    return [(verdict.question, verdict.is_yes) for verdict in parse_think(text).verdicts]


def test_prompts_name_what_they_are_about() -> None:
    for prompt in (outcome_prompt, think_prompt, rule_prompt):
        assert "a cat {and} a dog" in prompt("a cat {and} a dog")
    assert rule_prompt("Is there a cat?") == "Is there a cat? Please answer yes or no."
    for tag in ("<think_start>", "<think_end>", "<answer_start>", "<answer_end>"):
        assert tag in RATING_PROMPTS["think"]


@pytest.mark.parametrize("answers", [[True, True], [True, False], [False, False]])
def test_an_answer_to_learn_is_read_back(answers: list[bool]) -> None:
    text = think_answer(QUESTIONS, answers)
    assert text.startswith("<think_start> Is there a cat? ")
    assert read(text) == list(zip(QUESTIONS, answers, strict=True))
    assert parse_think(text).result is all(answers)
    assert parse_think(text).score == sum(answers) / 2


def test_the_beginning_of_an_answer_is_that_of_the_whole() -> None:
    verdicts = [Verdict(QUESTIONS[0], True)]
    start = think_so_far(verdicts, QUESTIONS[1])
    assert start == "<think_start> Is there a cat? Yes; Are there exactly two dogs?"
    assert think_answer(QUESTIONS, [True, False]).startswith(f"{start} No")


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("Is it red? Yes; is it big? no <think_end>", [("Is it red?", True), ("is it big?", False)]),
        ("<think_start> Is it red? yes", [("Is it red?", True)]),
        ("Is it red? YES\nIs it big?\nNo.", [("Is it red?", True), ("Is it big?", False)]),
        ("noise? <think_start> Is it red?Yes<think_end> Is it big? No", [("Is it red?", True)]),
        ("<think_end> <think_start> Is it red? Yes", [("Is it red?", True)]),
        ("<think_start> Is it? Is it red? yes <think_end>", [("Is it red?", True)]),
        ("Is it red? yes; Is it big? perhaps; Is it old? no", [("Is it red?", True), ("perhaps; Is it old?", False)]),
        ("- Is it red? Yes\n- Is it big? No", [("Is it red?", True), ("Is it big?", False)]),
    ],
)
def test_every_question_with_a_yes_or_no_counts_and_missing_tags_stand_at_the_ends(
    text: str, verdicts: list[tuple[str, bool]]
) -> None:
    assert read(text) == verdicts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "<think_start><think_end>",
        "<think_start> It is red. Yes. <think_end>",
        "Is it red? yesterday; is it big? nothing",
        "Is it red? Definitely yes",
        "<think_start> <think_end> Is it red? Yes <answer_start> Yes <answer_end>",
        "<answer_start> Yes <answer_end>",
    ],
)
def test_a_thought_without_a_question_is_one_no_and_a_failure(text: str) -> None:
    found = parse_think(text)
    assert (found.num_yes, len(found.verdicts), found.score) == (0, 1, 0.0)
    assert not found.is_parsed


@pytest.mark.parametrize(
    ("text", "result", "score"),
    [
        ("<think_start> Is it? No <think_end> <answer_start> Yes <answer_end>", True, 0.0),
        ("Is it? Yes <think_end> <answer_start> no", False, 1.0),
        ("Is it? Yes <answer_start> maybe <answer_end>", None, 1.0),
        ("Is it? Yes; is it? No; is it? No; is it? No", None, 0.25),
    ],
)
def test_the_result_of_a_thought_is_kept_and_not_scored(text: str, result: bool | None, score: float) -> None:
    found = parse_think(text)
    assert (found.result, found.score) == (result, score)


@pytest.mark.parametrize(
    ("text", "is_yes", "is_parsed"),
    [
        ("yes", True, True),
        ("Yes, it does.", True, True),
        ("\n YES", True, True),
        ("**Yes**", True, True),
        ("no", False, True),
        ("No, yes", False, True),
        ("yesterday", False, False),
        ("Nothing", False, False),
        ("It is. Yes", False, False),
        ("", False, False),
    ],
)
def test_only_a_leading_word_yes_is_a_yes(text: str, is_yes: bool, is_parsed: bool) -> None:
    assert parse_leading("Is it?", text) == Verdicts((Verdict("Is it?", is_yes),), is_parsed)
