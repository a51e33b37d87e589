# SPDX-License-Identifier: Apache-2.0
"""Packing of preferences: both rows of a pair are in one forward pass, wherever in it.

Legend: P pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from unigen.data.batch import Batch, Sample, collate
from unigen.sequence.packing import pack, pack_evenly


def pack_pairs(
    samples: Sequence[Sample], tokens_per_row: int, rows_per_batch: int, *, length_multiple: int | None = None
) -> Iterator[tuple[Sequence[Sample], Batch]]:
    """Batches of at most `rows_per_batch` packed rows, each with the preferences in it, in their order.

    Args:
        samples: each with its `rejected`; the two rows of any of them fit into a batch.
        length_multiple: see `pack_batches`; here the rows of a batch are equally long.
    """
    start = 0
    while start < len(samples):
        stop, rows = start + 1, _pack(samples[start : start + 1], tokens_per_row)
        while stop < len(samples):
            more = _pack(samples[start : stop + 1], tokens_per_row)
            if len(more) > rows_per_batch:
                break
            stop, rows = stop + 1, more
        assert len(rows) <= rows_per_batch, "the configuration's check lets a pair fit into a batch"
        chosen = samples[start:stop]
        length = None
        if length_multiple is not None:
            rows, length = pack_evenly(_lengths(chosen), tokens_per_row, length_multiple)
        yield chosen, _collate(chosen, rows, length)
        start = stop


def _pack(samples: Sequence[Sample], tokens_per_row: int) -> list[list[int]]:
    """Rows of numbers of documents: 2n is the chosen one of pair n, 2n + 1 the rejected one."""
    return pack(_lengths(samples), tokens_per_row)


def _lengths(samples: Sequence[Sample]) -> list[int]:
    return [document.document.length for document in _documents(samples)]


def _documents(samples: Sequence[Sample]) -> list[Sample]:
    return [document for sample in samples for document in (sample, _rejected(sample))]


def _rejected(sample: Sample) -> Sample:
    assert sample.rejected is not None, "a sample without a second image is no preference"
    return sample.rejected


def _collate(samples: Sequence[Sample], rows: Sequence[Sequence[int]], length: int | None) -> Batch:
    documents = _documents(samples)
    batch = collate([[documents[number] for number in row] for row in rows], length)
    places = torch.tensor([number for row in rows for number in row])
    # Every document has one image, so images are numbered as documents are placed.
    return replace(batch, pairs_P2=places.argsort().view(-1, 2))
