# SPDX-License-Identifier: Apache-2.0
"""A fast path against its slow twin in one run: the same results, operations counted, CPU time of one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from unigen.bench.counting import count_flops
from unigen.bench.figures import Figure, Setting

T = TypeVar("T")
FORMULA_TOLERANCE = 0.02
"""Counted operations may differ from the formulas of performance.md by this much."""


@dataclass(frozen=True)
class Expected:
    """Operations by formula."""

    fast_flops: float
    twin_flops: float


@dataclass(frozen=True)
class Pair(Generic[T]):
    """Two ways to one result."""

    name: str
    fast: Callable[[], T]
    twin: Callable[[], T]
    difference: Callable[[T, T], float]
    """How far two results are apart."""
    expected: Expected

    def figures(
        self,
        setting: Setting,
        *,
        flop_floor: float,
        time_floor: float | None,
        tolerance: float = 0.0,
        formula_tolerance: float = FORMULA_TOLERANCE,
        note: str = "",
    ) -> Iterator[Figure]:
        """Equality, operations and time; the counted runs warm up for the timed ones.

        Args:
            tolerance: largest difference of the results; 0 where they have to be identical.
            formula_tolerance: by how much counted operations may differ from the formulas.
        """
        fast, fast_flops = count_flops(self.fast)
        twin, twin_flops = count_flops(self.twin)
        wanted = self.expected
        yield Figure(f"{self.name}/difference", self.difference(fast, twin), at_most=tolerance, note=note)
        ratio, formula = twin_flops / fast_flops, wanted.twin_flops / wanted.fast_flops
        yield Figure(f"{self.name}/flop_ratio", ratio, "x", at_least=flop_floor, note=f"formula {formula:.2f} x")
        yield deviation(f"{self.name}/fast_flops_off_formula", fast_flops, wanted.fast_flops, formula_tolerance)
        yield deviation(f"{self.name}/twin_flops_off_formula", twin_flops, wanted.twin_flops, formula_tolerance)
        times = paired_cpu_seconds(self.fast, self.twin, 1 if setting.is_quick else setting.pairs)
        bound = None if time_floor is None else setting.timed(time_floor)
        spread = (
            f"pairs {min(times.ratios):.2f} to {max(times.ratios):.2f}; {times.fast:.3g} s against {times.twin:.3g} s"
        )
        yield Figure(f"{self.name}/time_ratio", times.ratio, "x", at_least=bound, note=spread)


def deviation(name: str, counted: float, formula: float, tolerance: float = FORMULA_TOLERANCE) -> Figure:
    """How far counted operations are from a formula, as a share of it."""
    note = f"counted {counted / 1e9:.4g} GFLOP, formula {formula / 1e9:.4g}"
    return Figure(name, abs(counted / formula - 1), at_most=tolerance, note=note)


@dataclass(frozen=True)
class PairedTimes:
    """Seconds of CPU time, run by run; pairs were run one after the other."""

    fast_runs: list[float]
    twin_runs: list[float]

    @property
    def ratios(self) -> list[float]:
        return [twin / max(fast, 1e-9) for fast, twin in zip(self.fast_runs, self.twin_runs, strict=True)]

    @property
    def ratio(self) -> float:
        """Median of the ratios of pairs, on which a change of the machine's speed between pairs has no influence."""
        return statistics.median(self.ratios)

    @property
    def fast(self) -> float:
        return statistics.median(self.fast_runs)

    @property
    def twin(self) -> float:
        return statistics.median(self.twin_runs)


def paired_cpu_seconds(fast: Callable[[], object], twin: Callable[[], object], pairs: int) -> PairedTimes:
    """CPU time of one thread, interleaved: fast, twin, fast, twin, ..."""
    times: tuple[list[float], list[float]] = ([], [])
    with one_thread():
        for _ in range(pairs):
            for run, found in zip((fast, twin), times, strict=True):
                found.append(cpu_seconds(run))
    return PairedTimes(*times)


def cpu_seconds(run: Callable[[], Any]) -> float:
    """CPU time of the whole process for one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes in the calling thread alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
