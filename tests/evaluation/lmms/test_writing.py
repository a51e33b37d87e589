# SPDX-License-Identifier: Apache-2.0
"""What a task says of how to write is what is done, or refused."""

from typing import Any

import pytest

from unigen.errors import EvaluationError
from unigen.evaluation.lmms.writing import Writing, read_writing


def _settings(**generation: Any) -> dict[str, Any]:
    return dict(read_writing(generation, 1024).settings)


@pytest.mark.parametrize(
    ("generation", "settings"),
    [
        ({}, {"max_new_tokens": 100, "temperature": 0.0}),
        (
            {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False},
            {"max_new_tokens": 16, "temperature": 0.0},
        ),
        ({"max_new_tokens": 16384}, {"max_new_tokens": 1024, "temperature": 0.0}),
        ({"max_gen_toks": 32, "temperature": None}, {"max_new_tokens": 32, "temperature": 0.0}),
        (
            {"temperature": 0.2, "do_sample": False, "max_new_tokens": 1024},
            {"max_new_tokens": 1024, "temperature": 0.0},
        ),
        ({"temperature": 0.2}, {"max_new_tokens": 100, "temperature": 0.2}),
        ({"do_sample": True}, {"max_new_tokens": 100, "temperature": 1.0}),
        ({"do_sample": True, "temperature": 0}, {"max_new_tokens": 100, "temperature": 0.0}),
        ({"do_sample": True, "top_k": -1}, {"max_new_tokens": 100, "temperature": 1.0, "top_k": 0}),
        ({"image_aspect_ratio": "original", "until": ["ASSISTANT:"]}, {"max_new_tokens": 100, "temperature": 0.0}),
    ],
)
def test_generation_settings_are_read(generation: dict[str, Any], settings: dict[str, Any]) -> None:
    assert _settings(**generation) == settings


def test_top_p_is_a_probability_and_never_a_number_of_tokens() -> None:
    assert _settings(do_sample=True, temperature=0.7, top_p=0.9) == {
        "max_new_tokens": 100,
        "temperature": 0.7,
        "top_p": 0.9,
    }


@pytest.mark.parametrize(
    ("generation", "named"),
    [
        ({"num_beams": 4}, "num_beams=4"),
        ({"num_return_sequences": 2}, "num_return_sequences=2"),
        ({"repetition_penalty": 1.1}, "repetition_penalty=1.1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": "warm"}, "temperature='warm'"),
    ],
)
def test_what_would_change_the_answer_and_is_not_done_is_refused(generation: dict[str, Any], named: str) -> None:
    with pytest.raises(EvaluationError, match=named):
        read_writing(generation, 1024)


@pytest.mark.parametrize(
    ("until", "answer"),
    [
        (["ASSISTANT:", "."], "B"),
        (".", "B"),
        (["\n\n"], "B. It is\n\nASSISTANT: so"),  # lmms-eval's own filling, see the constant
        (["ASSISTANT:", "\n\n"], "B. It is"),
        ([], "B. It is\n\nASSISTANT: so"),
        ([""], "B. It is\n\nASSISTANT: so"),
        (None, "B. It is\n\nASSISTANT: so"),
    ],
)
def test_an_answer_ends_at_the_first_stop_string(until: Any, answer: str) -> None:
    assert read_writing({"until": until}, 1024).cut("B. It is\n\nASSISTANT: so") == answer


def test_only_a_temperature_makes_writing_random() -> None:
    assert not read_writing({"temperature": 0.9, "do_sample": False}, 8).is_random
    assert read_writing({"temperature": 0.9}, 8).is_random


def test_requests_that_are_written_alike_compare_equal() -> None:
    assert read_writing({"max_new_tokens": 8}, 16) == Writing((("max_new_tokens", 8), ("temperature", 0.0)))
