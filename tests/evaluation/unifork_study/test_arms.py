# SPDX-License-Identifier: Apache-2.0
"""One budget: with whole rounds over the lanes, an expert sees in every step what a model of both tasks sees of its task."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from unigen.data.lanes import WeightedSource
from unigen.data.mixture import SampleStream

LANES = 8


def lanes_of_step(counts: dict[str, int], task: str, step: int) -> Counter[int]:
    """How many samples of a task each lane serves; a lane's own order of a task depends on nothing else."""
    source: Any = SimpleNamespace(name="source")
    sources = {name: [WeightedSource(source)] for name in counts}
    stream: SampleStream[Any] = SampleStream(sources, counts, lambda *_: None, lanes=LANES, seed=0)
    return Counter(stream.lane_of(step, place) for place, name in enumerate(stream.layout) if name == task)


@pytest.mark.parametrize("expert", [{"t2i": 64}, {"mmu": 48, "lm": 8}])
def test_experts_see_the_samples_of_their_task_step_by_step(expert: dict[str, int]) -> None:
    both = {"t2i": 64, "mmu": 48, "lm": 8}
    for task in expert:
        for step in range(10):
            assert lanes_of_step(expert, task, step) == lanes_of_step(both, task, step)


def test_with_a_broken_round_they_would_not() -> None:
    both = {"t2i": 60, "mmu": 50}
    assert any(lanes_of_step({"t2i": 60}, "t2i", step) != lanes_of_step(both, "t2i", step) for step in range(10))
