# SPDX-License-Identifier: Apache-2.0
"""Who sees whom: the one definition, and its renderings.

    row i sees column j  <=>  same document, and ( j <= i  or  j is open to all rows of the document
                                                   or  i and j lie in the same open block )

Legend: R packed rows, L positions of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask  # imported where it is used: it takes seconds


@dataclass(frozen=True)
class Visible:
    """The three facts about each position from which every mask follows."""

    documents_RL: Tensor
    """Number of the document, -1 for padding."""
    blocks_RL: Tensor
    """Number of the open block, -1 outside."""
    open_RL: Tensor
    """Whether the column is open to all rows of its document."""

    def to(self, device: torch.device | str) -> Visible:
        return Visible(self.documents_RL.to(device), self.blocks_RL.to(device), self.open_RL.to(device))

    def dense(self) -> Tensor:
        """Boolean mask (R, 1, L, L), true where row sees column.

        Padding positions form a document of their own, so no row of the softmax is empty.
        """
        documents, blocks = self.documents_RL, self.blocks_RL
        same_document = documents[:, :, None] == documents[:, None, :]
        same_block = (blocks[:, :, None] == blocks[:, None, :]) & (blocks >= 0)[:, None, :]
        length = documents.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
        return (same_document & (causal | self.open_RL[:, None, :] | same_block))[:, None]

    def block_mask(self) -> BlockMask:
        """The same for FlexAttention on CUDA, without ever holding an L x L mask."""
        from torch.nn.attention.flex_attention import create_block_mask

        num_rows, length = self.documents_RL.shape
        return create_block_mask(
            self._rule(), num_rows, None, length, length, device=str(self.documents_RL.device), _compile=True
        )

    def _rule(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        documents, blocks, is_open = self.documents_RL, self.blocks_RL, self.open_RL

        def sees(row: Tensor, _head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            same_block = (blocks[row, i] == blocks[row, j]) & (blocks[row, j] >= 0)
            return (documents[row, i] == documents[row, j]) & ((j <= i) | is_open[row, j] | same_block)

        return sees

    def mask(self) -> Tensor | BlockMask:
        """What attention takes on this device."""
        return self.block_mask() if self.documents_RL.is_cuda else self.dense()
