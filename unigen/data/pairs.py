# SPDX-License-Identifier: Apache-2.0
"""Packing of preferences: both rows of a pair are in one forward pass."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from unigen.data.batch import Batch, Sample
from unigen.data.groups import pack_groups


def pack_pairs(
    samples: Sequence[Sample], tokens_per_row: int, rows_per_batch: int, *, length_multiple: int | None = None
) -> Iterator[tuple[Sequence[Sample], Batch]]:
    """Batches of at most `rows_per_batch` packed rows, each with the preferences in it, in their order: see `pack_groups`.

    Args:
        samples: each with its `rejected`.
    """
    groups = [(sample, _rejected(sample)) for sample in samples]
    for chosen, batch, images_P2 in pack_groups(
        groups, tokens_per_row, rows_per_batch, length_multiple=length_multiple
    ):
        yield samples[chosen], replace(batch, pairs_P2=images_P2)


def _rejected(sample: Sample) -> Sample:
    assert sample.rejected is not None, "a sample without a second image is no preference"
    return sample.rejected
