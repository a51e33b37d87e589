# SPDX-License-Identifier: Apache-2.0
"""Packing: whole documents, none lost, none twice, no row too full, always the same."""

import numpy as np
import pytest

from unigen.sequence.packing import pack, pack_evenly


@pytest.mark.parametrize("seed", range(5))
def test_every_document_is_in_exactly_one_row_and_no_row_is_too_full(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 101, size=200).tolist()
    rows = pack(lengths, 100)
    assert sorted(index for row in rows for index in row) == list(range(200))
    assert max(sum(lengths[index] for index in row) for row in rows) <= 100
    lower_bound = -(-sum(lengths) // 100)
    assert len(rows) <= 11 / 9 * max(lower_bound, sum(length > 50 for length in lengths)) + 1


def test_documents_that_fill_a_row_together_share_it() -> None:
    assert pack([60, 30, 40, 70], 100) == [[0, 2], [1, 3]]


def test_rows_and_documents_come_in_the_order_of_their_first_document() -> None:
    rows = pack([10, 95, 20, 90, 5], 100)
    assert rows == sorted(rows)
    assert all(row == sorted(row) for row in rows)


def test_a_document_as_long_as_a_row_fits_and_a_longer_one_is_refused() -> None:
    assert pack([100], 100) == [[0]]
    with pytest.raises(ValueError, match="101 tokens does not fit a row of 100"):
        pack([3, 101], 100)


def test_nothing_packs_into_nothing() -> None:
    assert pack([], 10) == []


def test_even_rows_are_as_few_and_no_longer_than_they_need_to_be() -> None:
    assert pack([30, 30, 30, 30], 100) == [[0, 1, 2], [3]]
    assert pack_evenly([30, 30, 30, 30], 100, 8) == ([[0, 1], [2, 3]], 64)


@pytest.mark.parametrize("seed", range(5))
def test_even_rows_hold_every_document_once_within_one_length(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 101, size=30).tolist()
    rows, length = pack_evenly(lengths, 250, 16)
    assert sorted(index for row in rows for index in row) == list(range(30))
    assert max(sum(lengths[index] for index in row) for row in rows) <= length <= 250
    assert length == 250 or length % 16 == 0
    assert len(rows) <= len(pack(lengths, 250))


def test_a_multiple_as_long_as_a_row_makes_rows_of_that_length() -> None:
    assert pack_evenly([30, 30], 100, 100) == ([[0, 1]], 100)
    assert pack_evenly([], 100, 8) == ([], 100)
    with pytest.raises(ValueError, match="101 tokens does not fit a row of 100"):
        pack_evenly([101], 100, 8)
