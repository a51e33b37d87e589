# SPDX-License-Identifier: Apache-2.0
"""Yes and no are compared where they part, with one row where both spellings part at one place."""

import math
from collections.abc import Callable

import pytest
import torch

from unigen.data.batch import Sample
from unigen.generation.yes_no import yes_no_rows, yes_probability
from unigen.sequence.layout import Document, text

WORDS = {"Yes": [1], "No": [2], "yes": [3], "no": [4]}
PIECES = {"Yes": [1], "No": [2], "yes": [5, 6, 7], "no": [5, 6, 8]}
"""A tokenizer that writes both small ones with a beginning in common."""
QUESTION = [10, 11]


def row_of(spelled: dict[str, list[int]]) -> Callable[[str], Sample]:
    return lambda answer: Sample("", Document(1, (text([*QUESTION, *spelled[answer.removeprefix("so? ")]]),)))


@pytest.mark.parametrize("answer_start", ["", "so?"])
def test_whole_words_are_read_once_for_both_spellings(answer_start: str) -> None:
    (row,) = yes_no_rows(row_of(WORDS), answer_start)
    assert row.row.num_states == 1
    assert [list(one.token_ids) for one in row.row.sample.document.segments] == [QUESTION]
    assert row.pairs == ((1, 2), (3, 4))
    probs = torch.tensor([[0.1, 0.2, 0.1, 0.3, 0.3]])
    assert yes_probability([row], probs.log()) == pytest.approx((0.2 + 0.3) / (0.2 + 0.1 + 0.3 + 0.3))


def test_a_spelling_in_pieces_is_read_up_to_where_its_words_part() -> None:
    rows = yes_no_rows(row_of(PIECES), "")
    assert [(row.spelled, row.pairs, row.row.num_states) for row in rows] == [
        ((), ((1, 2),), 1),
        ((5, 6), ((7, 8),), 3),
    ]
    probs_MV = torch.full((4, 9), 0.01)
    probs_MV[:2, 1], probs_MV[:2, 2], probs_MV[:2, 5] = 0.3, 0.1, 0.53
    probs_MV[2, 6] = 0.92
    probs_MV[3, 7], probs_MV[3, 8] = 0.2, 0.73
    probs_MV /= probs_MV.sum(dim=1, keepdim=True)
    begun = float(probs_MV[1, 5] * probs_MV[2, 6])
    yes = float(probs_MV[0, 1]) + begun * float(probs_MV[3, 7])
    no = float(probs_MV[0, 2]) + begun * float(probs_MV[3, 8])
    assert yes_probability(rows, probs_MV.log()) == pytest.approx(yes / (yes + no), rel=1e-5)


def test_probabilities_far_too_small_for_numbers_still_compare() -> None:
    (row,) = yes_no_rows(row_of(WORDS), "")
    logits = torch.tensor([[900.0, -500.0, -501.0, -900.0, -900.0]])
    assert yes_probability([row], logits) == pytest.approx(1 / (1 + math.exp(-1)))
