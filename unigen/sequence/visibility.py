# SPDX-License-Identifier: Apache-2.0
"""Who sees whom: the one definition, and its renderings.

    row i sees column j  <=>  same document, and ( j <= i  or  j is open to all rows of the document
                                                   or  i and j lie in the same open block )

Legend: R packed rows, L positions of a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask  # imported where it is used: it takes seconds


SHORT_ROW = 512
"""Up to this length of a row, off CUDA, one call with a mask of the whole row costs less than a call for each document."""

BLOCK_LENGTH = 128
"""Positions of a block of FlexAttention's masks: rows are multiples of it on CUDA."""

_Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DocumentMasks:
    """The mask of packed rows document by document: nothing is computed between documents, or for padding."""

    rows: list[list[DocumentMask]]
    """The documents of each row, from left to right."""


@dataclass(frozen=True)
class DocumentMask:
    start: int
    stop: int
    seen_11LL: Tensor | None
    """Boolean mask of the document's own positions; None where it is causal."""


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

    def by_document(self) -> DocumentMasks:
        """The same without the empty parts between documents, which are most of a long row."""
        is_plain_RL = (self.blocks_RL < 0) & ~self.open_RL
        rows = []
        for row, documents in enumerate(self.documents_RL.tolist()):
            found, start = [], 0
            for number, run in groupby(documents):
                stop = start + len(list(run))
                if number >= 0:
                    is_causal = bool(is_plain_RL[row, start:stop].all())
                    found.append(DocumentMask(start, stop, None if is_causal else self._part(row, start, stop).dense()))
                start = stop
            rows.append(found)
        return DocumentMasks(rows)

    def _part(self, row: int, start: int, stop: int) -> Visible:
        place = (slice(row, row + 1), slice(start, stop))
        return Visible(self.documents_RL[place], self.blocks_RL[place], self.open_RL[place])

    def rows(self, index_N: Tensor) -> Visible:
        """Those of some rows alone."""
        return Visible(self.documents_RL[index_N], self.blocks_RL[index_N], self.open_RL[index_N])

    def block_mask(self, purpose: str = "") -> BlockMask:
        """The same for FlexAttention on CUDA, without ever holding an L x L mask.

        It is good until the next one of its shape and purpose is made, so: forward and backward of one batch before the next.
        """
        from torch.nn.attention.flex_attention import create_block_mask

        num_rows, length = self.documents_RL.shape
        return create_block_mask(
            self._standing_rule(purpose),
            num_rows,
            None,
            length,
            length,
            device=str(self.documents_RL.device),
            BLOCK_SIZE=BLOCK_LENGTH,
            _compile=True,
        )

    def _standing_rule(self, purpose: str = "") -> _Rule:
        """The rule, as one and the same function for all batches of a shape: FlexAttention compiles each function anew."""
        standing, sees = _standing(purpose, str(self.documents_RL.device), *self.documents_RL.shape)
        for name, tensor in vars(standing).items():
            tensor.copy_(getattr(self, name))
        return sees

    def _rule(self) -> _Rule:
        documents, blocks, is_open = self.documents_RL, self.blocks_RL, self.open_RL

        def sees(row: Tensor, _head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            same_block = (blocks[row, i] == blocks[row, j]) & (blocks[row, j] >= 0)
            return (documents[row, i] == documents[row, j]) & ((j <= i) | is_open[row, j] | same_block)

        return sees

    def mask(self, purpose: str = "") -> Tensor | DocumentMasks | BlockMask:
        """What attention takes on this device. Masks that one pass needs beside each other have a `purpose` each."""
        if self.documents_RL.is_cuda:
            return self.block_mask(purpose)
        return self.dense() if self.documents_RL.shape[1] <= SHORT_ROW else self.by_document()


@functools.lru_cache(maxsize=16)
def _standing(purpose: str, device: str, num_rows: int, length: int) -> tuple[Visible, _Rule]:
    """Tensors that stay where they are, to be filled for each batch, and the rule that reads them."""
    numbers = {name: torch.zeros(num_rows, length, dtype=torch.long, device=device) for name in ("documents", "blocks")}
    is_open_RL = torch.zeros(num_rows, length, dtype=torch.bool, device=device)
    standing = Visible(numbers["documents"], numbers["blocks"], is_open_RL)
    return standing, standing._rule()
