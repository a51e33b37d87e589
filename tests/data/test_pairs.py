# SPDX-License-Identifier: Apache-2.0
"""Both rows of a pair are in one batch, and the batch says where."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unigen.data.batch import CodeImage, Sample
from unigen.data.pairs import pack_pairs
from unigen.sequence.layout import IGNORED, Document, Supervision, codes, text

NUM_CODES = 4


def row(key: str, num_words: int, num_masked: int, code: int) -> Sample:
    segments = (text([7] * num_words), codes(NUM_CODES, supervision=Supervision.MASKED))
    mask_I = np.arange(NUM_CODES) < num_masked
    return Sample(key, Document(0, segments), (CodeImage(np.full(NUM_CODES, code), mask_I),))


def pairs(number: int, generator: np.random.Generator) -> list[Sample]:
    """Of random lengths; the codes of pair n are 10 n where chosen, 10 n + 1 where rejected."""
    found = []
    for index in range(number):
        first, second = (row(f"{index}", *generator.integers(1, [9, NUM_CODES]), 10 * index + n) for n in (0, 1))
        found.append(replace(first, rejected=second))
    return found


@pytest.mark.parametrize(("tokens_per_row", "rows_per_batch"), [(12, 2), (24, 1), (30, 3), (200, 1)])
def test_every_pair_is_whole_in_one_batch_that_says_where(tokens_per_row: int, rows_per_batch: int) -> None:
    samples = pairs(9, np.random.default_rng(0))
    batches = list(pack_pairs(samples, tokens_per_row, rows_per_batch))
    assert [one.key for group, _ in batches for one in group] == [one.key for one in samples]
    assert (len(batches) > 1) == (tokens_per_row < 200)
    for group, batch in batches:
        assert batch.input_ids_RL.shape[0] <= rows_per_batch
        assert batch.input_ids_RL.shape[1] <= tokens_per_row
        contents = torch.stack(batch.code_images)[:, 0]
        expected = [[10 * int(one.key), 10 * int(one.key) + 1] for one in group]
        assert contents[batch.pairs_P2].tolist() == expected
        masked_N = (batch.code_targets_NI != IGNORED).sum(1)
        assert masked_N[batch.pairs_P2[:, 0]].tolist() == [one.num_targets for one in group]


def test_rows_in_multiples_are_no_longer_than_they_need_to_be() -> None:
    samples = pairs(9, np.random.default_rng(0))
    total = sum(one.document.length for pair in samples for one in (pair, pair.rejected) if one)
    for _, batch in pack_pairs(samples, 100, 4, length_multiple=8):
        rows, length = batch.input_ids_RL.shape
        assert length % 8 == 0
        assert batch.num_tokens == total
        assert rows == -(-total // 100)
        assert rows * (length - 8) <= total < rows * length
