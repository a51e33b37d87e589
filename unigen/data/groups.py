# SPDX-License-Identifier: Apache-2.0
"""Packing of documents that belong together: all of a group are in one forward pass, wherever in it.

Legend: G groups, K documents of each.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unigen.data.batch import Batch, Sample, collate
from unigen.sequence.packing import pack, pack_evenly


def pack_groups(
    groups: Sequence[Sequence[Sample]], tokens_per_row: int, rows_per_batch: int, *, length_multiple: int | None = None
) -> Iterator[tuple[slice, Batch, Tensor]]:
    """Batches of at most `rows_per_batch` packed rows, each with the groups that are in it, in their order, and the numbers
    (G, K) of their images in the batch.

    Args:
        groups: of equally many documents with one image each; those of any group fit into a batch.
        length_multiple: see `pack_batches`; here the rows of a batch are equally long.
    """
    start = 0
    while start < len(groups):
        stop, rows = start + 1, pack(_lengths(groups[start : start + 1]), tokens_per_row)
        while stop < len(groups):
            more = pack(_lengths(groups[start : stop + 1]), tokens_per_row)
            if len(more) > rows_per_batch:
                break
            stop, rows = stop + 1, more
        assert len(rows) <= rows_per_batch, "the configuration's check lets a group fit into a batch"
        chosen, length = slice(start, stop), None
        if length_multiple is not None:
            rows, length = pack_evenly(_lengths(groups[chosen]), tokens_per_row, length_multiple)
        documents = [document for group in groups[chosen] for document in group]
        batch = collate([[documents[number] for number in row] for row in rows], length)
        places = torch.tensor([number for row in rows for number in row])
        # Every document has one image, so images are numbered as documents are placed.
        yield chosen, batch, places.argsort().view(stop - start, -1)
        start = stop


def _lengths(groups: Sequence[Sequence[Sample]]) -> list[int]:
    return [document.document.length for group in groups for document in group]
