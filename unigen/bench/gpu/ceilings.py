# SPDX-License-Identifier: Apache-2.0
"""The machine's own ceilings: a large matrix product, and a copy, both of random data (zeros are faster)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from unigen.bench.figures import Figure, Setting
from unigen.bench.gpu.timing import FULL, QUICK, Effort, time_runs
from unigen.bench.machine import peak_bandwidth
from unigen.training.speed import peak_flops


def measure(setting: Setting) -> Iterator[Figure]:
    """A bfloat16 product of two 8192 x 8192 matrices; a copy of 4 GiB."""
    effort = QUICK if setting.is_quick else FULL
    yield matrix_product(8192, setting.device, effort)
    yield copy(2**32, setting.device, effort)


def matrix_product(side: int, device: torch.device, effort: Effort) -> Figure:
    """Operations a second."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    timed = time_runs(lambda: torch.mm(left, right, out=out), device, effort)
    peak = peak_flops()
    return Figure(
        "ceilings/matrix_product",
        2 * side**3 / timed.seconds / 1e12,
        "TFLOP/s",
        ceiling=peak / 1e12 if peak else None,
        note=timed.note,
    )


def copy(num_bytes: int, device: torch.device, effort: Effort) -> Figure:
    """Bytes read plus bytes written, a second."""
    source = torch.randint(256, (num_bytes,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    timed = time_runs(lambda: target.copy_(source), device, effort)
    peak = peak_bandwidth(device)
    return Figure(
        "ceilings/copy",
        2 * num_bytes / timed.seconds / 1e12,
        "TB/s",
        ceiling=peak / 1e12 if peak else None,
        note=timed.note,
    )
