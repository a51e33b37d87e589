# SPDX-License-Identifier: Apache-2.0
"""One lane of the mixture: an endless, resumable stream of samples per task that depends on nothing but the seed.

A lane reads its own share of every source. Its whole position is a few integers, which `Lane.state` gives as JSON and
from which a new lane goes on exactly where the old one was.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from unigen.data.cursor import Cursor, LaneSettings, Position
from unigen.data.draws import Draws
from unigen.data.faults import Fault, SampleRefused
from unigen.data.records import Record, Source
from unigen.data.sample import RawSample

T = TypeVar("T")
Prepare = Callable[[RawSample, Draws], T]

FAULTS_IN_A_ROW = 100
"""Bad records after which a lane reports before it goes on looking."""


@dataclass(frozen=True)
class WeightedSource:
    source: Source
    weight: float = 1.0


class Lane(Generic[T]):
    """One lane: for every task an endless stream of prepared samples from its weighted sources."""

    def __init__(
        self,
        index: int,
        mixture: Mapping[str, Sequence[WeightedSource]],
        prepare: Prepare[T],
        settings: LaneSettings,
        state: dict[str, Any] | None = None,
    ) -> None:
        self._index = index
        self._mixture = mixture
        self._prepare = prepare
        self._settings = settings
        state = state or {}
        self._served: dict[str, int] = {task: int(state.get(task, {}).get("served", 0)) for task in mixture}
        self._positions: dict[str, dict[str, Position]] = {
            task: {name: _position(place) for name, place in state.get(task, {}).get("sources", {}).items()}
            for task in mixture
        }
        self._cursors: dict[tuple[str, str], Cursor] = {}

    def state(self) -> dict[str, Any]:
        """JSON-able: per task how many samples were served, and the position in each source."""
        for (task, name), cursor in self._cursors.items():
            self._positions[task][name] = cursor.position
        return {
            task: {"served": served, "sources": dict(self._positions[task])} for task, served in self._served.items()
        }

    def next(self, task: str, faults: list[Fault]) -> tuple[bool, T | None]:
        """The next sample of `task`; the faults on the way are appended to `faults`.

        Returns:
            (True, sample), or (False, None) after `FAULTS_IN_A_ROW` bad records: call again to go on looking.

        Raises:
            DataError: a whole epoch of a source without a usable record.
        """
        weighted = self._choose(task)
        cursor = self._cursor(task, weighted.source)
        for _ in range(FAULTS_IN_A_ROW):
            entry = cursor.take()
            if isinstance(entry, Record):
                draws = Draws(self._settings.seed, entry.key, cursor.epoch)
                try:
                    value = self._prepare(weighted.source.decode(entry, draws), draws)
                except SampleRefused as refused:
                    entry = Fault(refused.cause, entry.key, refused.detail)
                else:
                    cursor.count_usable()
                    self._served[task] += 1
                    return True, value
            cursor.count_refused(entry)
            faults.append(entry)
        return False, None

    def _choose(self, task: str) -> WeightedSource:
        """The source of this lane's next sample of `task`: a draw by weight, keyed by seed, lane, task and number."""
        sources = self._mixture[task]
        if len(sources) == 1:
            return sources[0]
        name = f"{self._settings.seed}|{self._index}|{task}|{self._served[task]}".encode()
        drawn = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") / 2**64
        rest = drawn * sum(weighted.weight for weighted in sources)
        for weighted in sources:
            rest -= weighted.weight
            if rest < 0:
                return weighted
        return sources[-1]

    def _cursor(self, task: str, source: Source) -> Cursor:
        key = (task, source.name)
        if key not in self._cursors:
            start = self._positions[task].get(source.name, (0, 0, 0))
            self._cursors[key] = Cursor(source, self._index, self._settings, start)
        return self._cursors[key]


def _position(place: Sequence[int]) -> Position:
    epoch, index, taken = (int(number) for number in place)
    return epoch, index, taken
