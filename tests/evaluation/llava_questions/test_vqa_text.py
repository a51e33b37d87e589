# SPDX-License-Identifier: Apache-2.0
"""Answers in the form that VQA compares, rule by rule, and as lmms-eval's processor has them."""

import pytest

from unigen.evaluation.llava_questions.vqa_text import normalise_answer

CASES = [
    ("Two", "2"),
    ("none", "0"),
    ("ten o'clock", "10 o'clock"),
    ("A dog, an owl and the cat.", "dog owl and cat"),
    ("dont know", "don't know"),
    ("couldntve", "couldntve"),
    ("couldn'tve", "couldn't've"),
    ("yall'd've come", "y'all'd've come"),
    ("somebody'd", "somebodyd"),
    ("she's", "she 's"),
    ("1,000", "1000"),
    ("3.14", "3.14"),
    ("3.14.", "3.14"),
    ("5 p.m.", "5 pm"),
    ("black-white", "black white"),
    ("black - white", "black white"),
    ("black-white - red", "blackwhite red"),
    ("yes/no", "yes no"),
    ('"stop!"', "stop"),
    ("what?", "what"),
    ("red\nand\tblue", "red and blue"),
    ("\n", ""),
    ("", ""),
    ("the", ""),
    ("...", ""),
    ("caf\u00e9 (open)", "caf\u00e9 open"),
]


@pytest.mark.parametrize(("text", "normal"), CASES)
def test_an_answer_is_brought_into_the_form_that_is_compared(text: str, normal: str) -> None:
    assert normalise_answer(text) == normal


def test_answers_are_those_of_the_processor_that_the_protocol_uses() -> None:
    metric = pytest.importorskip(
        "lmms_eval.tasks._task_utils.vqa_eval_metric", reason="the extra eval is not installed"
    )
    official = metric.EvalAIAnswerProcessor()
    shorts = [*official.CONTRACTIONS, *official.CONTRACTIONS.values(), *official.NUMBER_MAP]
    signs = [
        f"a{before}{sign}{after}b" for sign in official.PUNCTUATIONS for before in ("", " ") for after in ("", " ")
    ]
    for text in [*(text for text, _ in CASES), *shorts, *signs, "a-b - c/d", "x_y z;w", "1,2 3,4", "(a)b"]:
        assert normalise_answer(text) == official(text), text
