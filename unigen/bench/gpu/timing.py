# SPDX-License-Identifier: Apache-2.0
"""Seconds that a device takes: events on a GPU, where the host runs ahead; the clock elsewhere."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

WARM_UPS, RUNS, REPEATS = 10, 30, 2


@dataclass(frozen=True)
class Timed:
    """Median seconds of each repeat."""

    medians: tuple[float, ...]

    @property
    def seconds(self) -> float:
        return statistics.median(self.medians)

    @property
    def spread(self) -> float:
        """How far the repeats are apart, relative to their median: a smaller difference between two figures is noise."""
        return (max(self.medians) - min(self.medians)) / self.seconds

    @property
    def note(self) -> str:
        return f"{self.seconds * 1e3:.4g} ms, repeats {self.spread:.1%} apart"


@dataclass(frozen=True)
class Effort:
    """How often something is run to be timed."""

    warm_ups: int = WARM_UPS
    runs: int = RUNS
    repeats: int = REPEATS

    def of_steps(self, steps: int) -> Effort:
        """For runs that are themselves `steps` equal steps: as many steps, in at least two runs."""
        return Effort(math.ceil(self.warm_ups / steps), max(2, math.ceil(self.runs / steps)), self.repeats)


FULL, QUICK = Effort(), Effort(warm_ups=1, runs=2)


def time_runs(run: Callable[[], object], device: torch.device, effort: Effort) -> Timed:
    """Run and time; a repeat warms up again."""
    return Timed(tuple(_median_seconds(run, device, effort) for _ in range(effort.repeats)))


def _median_seconds(run: Callable[[], object], device: torch.device, effort: Effort) -> float:
    for _ in range(effort.warm_ups):
        run()
    if device.type != "cuda":
        return statistics.median(_seconds(run) for _ in range(effort.runs))
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(effort.runs)]
    for start, stop in marks:
        start.record()
        run()
        stop.record()
    torch.cuda.synchronize(device)
    return statistics.median(start.elapsed_time(stop) / 1e3 for start, stop in marks)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def start_clean(device: torch.device) -> None:
    """Let go of earlier models, also of what was compiled for them, so that neither time nor memory is theirs."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
