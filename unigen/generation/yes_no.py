# SPDX-License-Identifier: Apache-2.0
"""The probability that an answer begins with yes rather than with no, from one reading of the question; nothing is written.

Yes and no are compared at the first token in which they differ, in both spellings: P(yes) is the share of `Yes` and `yes` in
all four. Legend: M states that are looked at, V vocabulary, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unigen.data.batch import Sample
from unigen.generation.shared_reading import ReadingRow, common_length, split_at_images, with_words

SPELLINGS = (("Yes", "No"), ("yes", "no"))


@dataclass(frozen=True)
class YesNoRow:
    """A row that ends where yes and no of a spelling part."""

    row: ReadingRow
    spelled: tuple[int, ...]
    """Tokens that the two have in common and the other spelling has not: the row's last ones."""
    pairs: tuple[tuple[int, int], ...]
    """The ids of yes and no behind it: of both spellings where they part at one place, as whole words do."""


def yes_no_rows(row_of: Callable[[str], Sample], answer_start: str) -> list[YesNoRow]:
    """The rows whose last states tell yes from no: one, or two where the tokenizer splits a spelling.

    Args:
        row_of: the row of the question with the beginning of an answer.
        answer_start: what the answer begins with before its yes or no.
    """
    before = f"{answer_start} " if answer_start else ""
    spelled = [[row_of(before + word) for word in pair] for pair in SPELLINGS]
    words = [[split_at_images(row)[1] for row in pair] for pair in spelled]
    base = common_length([ids for pair in words for ids in pair])
    found: dict[tuple[int, ...], YesNoRow] = {}
    for (row, _), (yes, no) in zip(spelled, words, strict=True):
        parting = common_length([yes, no])
        spelling = tuple(yes[base:parting])
        known = found.get(spelling)
        reading = ReadingRow(with_words(row, yes[:parting]), parting - base + 1) if known is None else known.row
        pairs = () if known is None else known.pairs
        found[spelling] = YesNoRow(reading, spelling, (*pairs, (yes[parting], no[parting])))
    return list(found.values())


def yes_probability(rows: Sequence[YesNoRow], logits_MV: Tensor) -> float:
    """P(yes) of one question.

    Args:
        logits_MV: for the last `row.num_states` states of each row, row by row.
    """
    logs_MV = torch.log_softmax(logits_MV.double(), dim=-1)
    start, yes, no = 0, [], []
    for row in rows:
        stop = start + row.row.num_states - 1
        so_far = sum((logs_MV[start + place, token] for place, token in enumerate(row.spelled)), logs_MV.new_zeros(()))
        yes += [so_far + logs_MV[stop, yes_id] for yes_id, _ in row.pairs]
        no += [so_far + logs_MV[stop, no_id] for _, no_id in row.pairs]
        start = stop + 1
    difference = torch.logsumexp(torch.stack(no), 0) - torch.logsumexp(torch.stack(yes), 0)
    return float(torch.sigmoid(-difference))


def num_states(questions: Sequence[Sequence[YesNoRow]]) -> list[int]:
    """How many last states of each row are looked at, row by row."""
    return [one.row.num_states for rows in questions for one in rows]


def probabilities_of_yes(questions: Sequence[Sequence[YesNoRow]], logits_MV: Tensor) -> list[float]:
    """P(yes) of every question.

    Args:
        logits_MV: for all states of `num_states`.
    """
    parts = logits_MV.split([sum(one.row.num_states for one in rows) for rows in questions])
    return [yes_probability(rows, part_MV) for rows, part_MV in zip(questions, parts, strict=True)]
