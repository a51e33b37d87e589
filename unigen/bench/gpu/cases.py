# SPDX-License-Identifier: Apache-2.0
"""The cases in which generation is measured: how many rows at once, and how its steps are run."""

from dataclasses import dataclass
from typing import Any

from unigen.bench.figures import Figure, Setting
from unigen.generation.steps import Decoding


@dataclass(frozen=True)
class Case:
    """One of them, with the rate that it has to reach and the one that would be good."""

    batch_size: int
    decoding: Decoding
    accept: float | None = None
    good: float | None = None

    def name(self, kind: str) -> str:
        """What its figures are called."""
        return f"{kind}/batch_{self.batch_size}/{self.decoding}"

    def figure(self, kind: str, rate: float, unit: str, setting: Setting, **about: Any) -> Figure:
        """The figure of its rate beside what is asked of it; `about` is the rest of a Figure."""
        accept = None if self.accept is None else setting.timed(self.accept)
        return Figure(self.name(kind), rate, unit, at_least=accept, good=self.good, **about)
