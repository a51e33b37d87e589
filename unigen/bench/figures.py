# SPDX-License-Identifier: Apache-2.0
"""What a benchmark gives: figures, each with the bounds that it is judged by."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Figure:
    """One number, and what it should be."""

    name: str
    """A path: benchmark, case, what."""
    value: float
    unit: str = ""
    at_least: float | None = None
    """Floor: a smaller value is a failure."""
    at_most: float | None = None
    """Limit: a larger value is a failure."""
    good: float | None = None
    """What an excellent implementation reaches."""
    ceiling: float | None = None
    """What the hardware or the formula allows."""
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the bounds hold; None where there are none. What is not a number meets nothing."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or self.value >= self.at_least
        below = self.at_most is None or self.value <= self.at_most
        return above and below

    @property
    def share(self) -> float | None:
        """Share of the ceiling."""
        return self.value / self.ceiling if self.ceiling else None

    def to_json(self) -> dict[str, Any]:
        """Everything but what is empty; a value that is not finite is null."""
        fields = {key: value for key, value in asdict(self).items() if value not in (None, "")}
        fields["value"] = self.value if math.isfinite(self.value) else None
        return {**fields, "is_met": self.is_met}


@dataclass(frozen=True)
class Setting:
    """How the benchmarks of one call are run."""

    device: torch.device
    is_quick: bool = False
    """Small sizes and one pair: shows that everything runs and that counts and results are right. Times are not judged."""
    seed: int = 0
    pairs: int = 5
    """Pairs of timed runs of a fast path and its twin."""

    def timed(self, bound: float) -> float | None:
        """A bound on a time, which holds at full size only."""
        return None if self.is_quick else bound
