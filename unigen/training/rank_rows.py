# SPDX-License-Identifier: Apache-2.0
"""Rows of all ranks, for objectives that compare every sample with those of the other ranks; gradients find their way back.

Legend: B rows of this rank, M the most that a rank has, R ranks, T rows of all ranks, D features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, distributed
from torch.nn import functional as F


class _Gather(torch.autograd.Function):
    """(M, D) of each rank -> (R, M, D); the gradient of a rank's rows is the sum of those that all ranks have for them."""

    @staticmethod
    def forward(ctx: Any, mine_MD: Tensor) -> Tensor:
        parts = [torch.empty_like(mine_MD) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, mine_MD.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient_RMD: Tensor) -> Tensor:
        summed_RMD = gradient_RMD.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed_RMD)
        return summed_RMD[distributed.get_rank()]


def of_all_ranks(rows_BD: Tensor, names: Sequence[str]) -> tuple[Tensor, list[str]]:
    """The rows (T, D) of all ranks and the name that each has, rank by rank. All ranks make this call together.

    A loss that every rank takes over its own share of the rows, averaged over ranks as gradients are, has the gradient that one
    process with all rows has.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows_BD, list(names)
    names_of_ranks: list[list[str]] = gather_object([list(names)])
    most = max(len(part) for part in names_of_ranks)
    padded_RMD = _Gather.apply(F.pad(rows_BD, (0, 0, 0, most - len(names))))
    rows_TD = torch.cat([padded_MD[: len(part)] for padded_MD, part in zip(padded_RMD, names_of_ranks, strict=True)])
    return rows_TD, [name for part in names_of_ranks for name in part]
