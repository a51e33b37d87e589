# SPDX-License-Identifier: Apache-2.0
"""Counting operations and bytes of tensors while something runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")


def count_flops(run: Callable[[], T]) -> tuple[T, float]:
    """What `run` returns, and its floating-point operations."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    return result, float(counter.get_total_flops())


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that `run` held at once, besides those that were there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with LiveBytes() as live:
        run()
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operations allocate, as long as somebody holds them. On the CPU, where torch keeps no count.

    Between operations only: what a kernel takes and gives back is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._outside: dict[int, StorageWeakRef] = {}
        self._inside: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._forget_the_dead()
        for storage in _storages((args, kwargs)):
            key = storage._cdata
            if key not in self._inside:
                self._outside[key] = StorageWeakRef(storage)
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            key = storage._cdata
            if key not in self._outside:
                self._inside[key] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._inside.values()))
        return result

    def _forget_the_dead(self) -> None:
        """The address of a storage may be used again by a later one."""
        self._inside = {key: entry for key, entry in self._inside.items() if not entry[0].expired()}
        self._outside = {key: entry for key, entry in self._outside.items() if not entry.expired()}


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_iter(tree) if isinstance(leaf, torch.Tensor)]
