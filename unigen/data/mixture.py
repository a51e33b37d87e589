# SPDX-License-Identifier: Apache-2.0
"""The mixture: which sample stands where in a global step, and which lane, rank and worker makes it.

A global step holds N = sum(samples_per_step) samples in blocks by task (t2i, mmu, lm). Sample p of step s comes from lane
(s * stride + p) % lanes, where the stride is the first number from N on without a common divisor with the lanes: so every lane
serves every position, and with it every task, equally often. The lane belongs to rank lane % world_size, and there to worker
(lane // world_size) % num_workers. So the samples of a run do not depend on how many ranks and workers make them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, Literal, TypeVar

from torch.utils.data import IterableDataset, get_worker_info

from unigen.config.schema import TASKS
from unigen.data.cursor import LaneSettings
from unigen.data.faults import Fault
from unigen.data.lanes import Lane, Prepare, WeightedSource
from unigen.errors import ConfigError, DataError

T = TypeVar("T")


@dataclass(frozen=True)
class StepPart(Generic[T]):
    """What one worker made of one global step, or, while it looks for a usable record, the faults it met so far."""

    step: int
    is_whole: bool
    samples: list[tuple[int, T]] = field(default_factory=list)
    """Position in the global step, and the prepared sample."""
    seen: int = 0
    """Records that were read for it, good and bad."""
    faults: list[Fault] = field(default_factory=list)
    states: dict[int, dict[str, Any]] = field(default_factory=dict)
    """State after this step of the lanes that served it."""
    failure: str | None = None
    """Why this worker cannot go on."""


class SampleStream(IterableDataset[StepPart[T]]):
    """The endless stream of one rank. Iterating yields one whole `StepPart` per worker and step, in the order of steps."""

    def __init__(
        self,
        sources: Mapping[str, Sequence[WeightedSource]],
        samples_per_step: Mapping[str, int],
        prepare: Prepare[T],
        *,
        lanes: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        shuffle_block: int = 1000,
    ) -> None:
        """
        Args:
            sources: by task, each with its weight.
            samples_per_step: by task, over all ranks.
            prepare: makes of a sample what training wants; may raise SampleRefused.

        Raises:
            ConfigError: lanes that cannot be dealt out evenly, or a task without a source.
        """
        check_lanes(lanes, world_size, num_workers)
        self.layout = step_layout(samples_per_step)
        self.settings = LaneSettings(lanes, seed, shuffle_block)
        self._stride = next(step for step in count(len(self.layout)) if math.gcd(step, lanes) == 1)
        self.rank, self.world_size, self.num_workers = rank, world_size, num_workers
        self._prepare = prepare
        self._mixture = {task: _usable_sources(sources, task) for task in dict.fromkeys(self.layout)}
        self.start_step = 0
        self.start_states: dict[int, dict[str, Any]] = {}

    @property
    def own_lanes(self) -> range:
        """The lanes of this rank."""
        return range(self.rank, self.settings.lanes, self.world_size)

    def positions(self, step: int, lanes: range) -> list[int]:
        """Positions in the global step `step` that `lanes` serve."""
        return [place for place in range(len(self.layout)) if self.lane_of(step, place) in lanes]

    def lane_of(self, step: int, place: int) -> int:
        """The lane that serves a position of a global step."""
        return (step * self._stride + place) % self.settings.lanes

    def __iter__(self) -> Iterator[StepPart[T]]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        assert workers == max(1, self.num_workers), f"{workers} workers, planned for {self.num_workers}"
        lanes = self.own_lanes[index::workers]
        running = {
            lane: Lane(lane, self._mixture, self._prepare, self.settings, self.start_states.get(lane)) for lane in lanes
        }
        for step in count(self.start_step):
            try:
                yield from self._serve(step, running, self.positions(step, lanes))
            except DataError as error:
                yield StepPart(step, is_whole=False, failure=str(error))
                return

    def _serve(self, step: int, running: dict[int, Lane[T]], positions: list[int]) -> Iterator[StepPart[T]]:
        samples: list[tuple[int, T]] = []
        faults: list[Fault] = []
        reported = 0
        used: set[int] = set()
        for place in positions:
            lane = self.lane_of(step, place)
            while True:
                found, value = running[lane].next(self.layout[place], faults)
                if found:
                    break
                reported += len(faults)
                yield StepPart(step, is_whole=False, seen=len(faults), faults=faults)
                faults = []
            used.add(lane)
            samples.append((place, value))  # type: ignore[arg-type]  # found says that it is a T
        states = {lane: running[lane].state() for lane in used}
        yield StepPart(step, True, samples, len(samples) + len(faults), faults, states)


def step_layout(samples_per_step: Mapping[str, int]) -> list[str]:
    """The task at each position of a global step: blocks in the order t2i, mmu, lm."""
    return [task for task in TASKS for _ in range(samples_per_step.get(task, 0))]


def check_lanes(lanes: int, world_size: int, num_workers: int) -> None:
    """Raises ConfigError unless every worker of every rank gets the same number of lanes."""
    unit = world_size * max(1, num_workers)
    if lanes > 0 and lanes % unit == 0:
        return
    workers = [number for number in range(1, 17) if lanes > 0 and lanes % (world_size * number) == 0]
    fewer = f", or data.num_workers={' or '.join(map(str, workers))}" if workers else ""
    above = unit * max(1, math.ceil(lanes / unit))
    raise ConfigError(
        f"data.lanes is {lanes}, which {world_size} ranks x {max(1, num_workers)} workers do not divide; "
        f"set data.lanes={above} (part of what a run repeats){fewer}"
    )


def epoch_steps(
    sizes: Mapping[str, int | None],
    samples_per_step: Mapping[str, int],
    ends: Literal["max_size_cycle", "min_size"] = "max_size_cycle",
) -> int:
    """Global steps of one epoch.

    Args:
        sizes: samples of each task; None where that is not known.
        ends: when the largest task is through (smaller ones start again), or when the smallest is.

    Raises:
        ConfigError: a size that is needed and not known.
    """
    steps = []
    for task, wanted in samples_per_step.items():
        if wanted <= 0:
            continue
        size = sizes.get(task)
        if size is None:
            raise ConfigError(
                f"how many samples the sources of task {task} hold is not known: "
                "give num_samples in each of them, or training.steps"
            )
        steps.append(math.ceil(size / wanted) if ends == "max_size_cycle" else max(1, size // wanted))
    if not steps:
        raise ConfigError("training.samples_per_step is empty; say how many samples of each task a step holds")
    return max(steps) if ends == "max_size_cycle" else min(steps)


def _usable_sources(sources: Mapping[str, Sequence[WeightedSource]], task: str) -> list[WeightedSource]:
    usable = [weighted for weighted in sources.get(task, ()) if weighted.weight > 0]
    if not usable:
        raise ConfigError(
            f"training.samples_per_step asks for {task}, but no source with a weight above 0 has that task"
        )
    names = [weighted.source.name for weighted in usable]
    assert len(set(names)) == len(names), f"two sources of {task} have one name: {names}"
    return usable
