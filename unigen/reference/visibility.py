# SPDX-License-Identifier: Apache-2.0
"""Who sees whom, written as the sentence of sequence/visibility.py reads, one pair of positions at a time.

Legend: R packed rows, L positions of a row.
"""

import torch
from torch import Tensor

from unigen.sequence.visibility import Visible


def dense_mask_slowly(visible: Visible) -> Tensor:
    """The boolean mask (R, 1, L, L) that `Visible.dense` must give."""
    documents, blocks, is_open = (x.tolist() for x in (visible.documents_RL, visible.blocks_RL, visible.open_RL))
    num_rows, length = visible.documents_RL.shape
    mask_R1LL = torch.zeros(num_rows, 1, length, length, dtype=torch.bool)
    for row in range(num_rows):
        for i in range(length):
            for j in range(length):
                if documents[row][i] != documents[row][j]:
                    continue
                in_one_block = blocks[row][i] != -1 and blocks[row][i] == blocks[row][j]
                if j <= i or is_open[row][j] or in_one_block:
                    mask_R1LL[row, 0, i, j] = True
    return mask_R1LL
