# SPDX-License-Identifier: Apache-2.0
"""Copies of tensors in host memory, from which a thread writes a checkpoint while training changes the originals."""

from collections.abc import Mapping

import torch
from torch import Tensor


class HostCopies:
    """Its buffers are pinned where the tensors lie on a GPU, and used again: the copies of one name are valid one at a time."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Contiguous copies under the same names, which are free to be used again by another `kind`."""
        copies = {name: self._copy(f"{kind}/{name}", tensor.detach()) for name, tensor in tensors.items()}
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()  # the copies run beside the host
        return copies

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[name] = buffer
        return buffer.copy_(tensor, non_blocking=True)


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
