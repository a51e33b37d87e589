# SPDX-License-Identifier: Apache-2.0
"""How fast a run is: tokens, samples and images a second, the share spent waiting for data, and the use of the hardware."""

import time
from dataclasses import dataclass, field

import torch

from unigen.training.stages.stage import TrainingBatch

PEAK_BFLOAT16_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12, "4090": 165e12}
"""Dense peaks by the GPU's name, operations per second (vendors' data sheets)."""


def peak_flops() -> float | None:
    """Peak of this rank's GPU; None where it is not known, as on a CPU."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAK_BFLOAT16_FLOPS.items() if part in name), None)


@dataclass
class SpeedMeter:
    """Counts of one rank since the last report. The first step, which compiles and warms up, is left out."""

    peak: float | None = field(default_factory=peak_flops)
    num_steps: int = 0
    tokens: int = 0
    slots: int = 0
    samples: int = 0
    images: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    data_seconds: float = 0.0
    _is_warm: bool = False

    def count_batch(self, batch: TrainingBatch, flops: float) -> None:
        self.tokens += batch.num_tokens
        self.slots += batch.num_slots
        self.images += batch.num_images
        self.flops += flops

    def count_step(self, num_samples: int, seconds: float, data_seconds: float) -> None:
        if not self._is_warm:
            self._is_warm = True
            self._clear()
            return
        self.num_steps += 1
        self.samples += num_samples
        self.seconds += seconds
        self.data_seconds += data_seconds

    def report(self, world_size: int) -> dict[str, float]:
        """Metrics over all ranks, taking the others to be like this one; clears the counts."""
        if not self.num_steps:
            return {}
        seconds = max(self.seconds, 1e-9)
        found = {
            "throughput/samples_per_second": world_size * self.samples / seconds,
            "throughput/images_per_second": world_size * self.images / seconds,
            "throughput/data_wait_fraction": self.data_seconds / seconds,
            "throughput/step_seconds": seconds / self.num_steps,
        }
        if self.tokens:
            found["throughput/tokens_per_second"] = world_size * self.tokens / seconds
            found["throughput/useful_token_fraction"] = self.tokens / self.slots
        if self.peak and self.flops:
            found["throughput/model_flops_utilization"] = self.flops / seconds / self.peak
        self._clear()
        return found

    def _clear(self) -> None:
        self.num_steps = self.tokens = self.slots = self.samples = self.images = 0
        self.flops = self.seconds = self.data_seconds = 0.0


class Stopwatch:
    """Seconds since it was last asked."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        return passed
