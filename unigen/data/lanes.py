# SPDX-License-Identifier: Apache-2.0
"""One lane of the mixture: an endless, resumable stream of samples per task that depends on nothing but the seed.

A lane reads its own share of every source. Its whole position is a few integers, which `Lane.state` gives as JSON and
from which a new lane goes on exactly where the old one was.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from unigen.data.draws import Draws
from unigen.data.faults import Fault, SampleRefused
from unigen.data.records import Part, Record, Source
from unigen.data.sample import RawSample
from unigen.errors import DataError

T = TypeVar("T")
Prepare = Callable[[RawSample, Draws], T]
Position = tuple[int, int, int]
"""Epoch, index in this lane's shards of that epoch, entries of that shard taken."""

FAULTS_IN_A_ROW = 100
"""Bad records after which a lane reports before it goes on looking."""
_SPLIT_BELOW = 4
"""With fewer shards per lane than this and no even division, shards are split so that all lanes get the same amount."""


@dataclass(frozen=True)
class WeightedSource:
    source: Source
    weight: float = 1.0


@dataclass(frozen=True)
class LaneSettings:
    """What all lanes of a run have in common."""

    lanes: int
    seed: int
    shuffle_block: int


def split_shards(num_shards: int, lanes: int) -> list[tuple[int, Part]]:
    """The pieces of a source that are dealt out to lanes: whole shards, or equal parts where there are few of them."""
    is_even = num_shards % lanes == 0 or num_shards >= _SPLIT_BELOW * lanes
    parts = 1 if is_even else lanes // math.gcd(num_shards, lanes)
    return [(shard, Part(index, parts)) for shard in range(num_shards) for index in range(parts)]


class Cursor:
    """A lane's way through one source, epoch after epoch.

    An epoch is the lane's share of a permutation of the pieces; inside a piece, blocks of entries are shuffled.
    """

    def __init__(self, source: Source, lane: int, settings: LaneSettings, position: Position = (0, 0, 0)) -> None:
        self._source = source
        self._lane = lane
        self._settings = settings
        self._pieces = split_shards(len(source.shards), settings.lanes)
        self._epoch, self._place, taken = position
        self._block_number, self._inside = divmod(taken, settings.shuffle_block)
        self._order = self._order_of_epoch()
        self._entries = self._open_piece()
        self._block = self._read_block()
        self._usable = 0
        self._refused: Counter[str] = Counter()
        self._is_whole_epoch = position == (self._epoch, 0, 0)

    @property
    def position(self) -> Position:
        return self._epoch, self._place, self._block_number * self._settings.shuffle_block + self._inside

    @property
    def epoch(self) -> int:
        """How often the entry that was taken last had been passed before."""
        return self._epoch

    def take(self) -> Record | Fault:
        """The next entry.

        Raises:
            DataError: a whole epoch went by without a record that `count_usable` was told of.
        """
        while self._inside >= len(self._block):
            self._next_block()
        self._inside += 1
        return self._block[self._inside - 1]

    def count_usable(self) -> None:
        """Note that the entry that was taken last became a sample."""
        self._usable += 1

    def count_refused(self, fault: Fault) -> None:
        """Note why the entry that was taken last did not."""
        self._refused[f"{fault.cause} (such as {fault.place})" if not self._refused else fault.cause] += 1

    def _next_block(self) -> None:
        if len(self._block) == self._settings.shuffle_block:
            self._block_number, self._inside = self._block_number + 1, 0
            self._block = self._read_block()
            return
        self._place, self._block_number, self._inside = self._place + 1, 0, 0
        if self._place >= len(self._order):
            self._end_epoch()
        self._entries = self._open_piece()
        self._block = self._read_block()

    def _end_epoch(self) -> None:
        if self._is_whole_epoch and not self._usable:
            self._complain()
        self._epoch, self._place = self._epoch + 1, 0
        self._usable, self._is_whole_epoch = 0, True
        self._refused.clear()
        self._order = self._order_of_epoch()

    def _complain(self) -> None:
        if not self._refused:
            raise DataError(
                f"lane {self._lane} of {self._settings.lanes} finds no record in source {self._source.name}: "
                f"it has fewer records than data.lanes={self._settings.lanes}; lower data.lanes"
            )
        causes = ", ".join(f"{count} {cause}" for cause, count in self._refused.most_common())
        raise DataError(f"source {self._source.name} has no usable record in a whole epoch of a lane: {causes}")

    def _order_of_epoch(self) -> list[tuple[int, Part]]:
        order = self._generator("shards").permutation(len(self._pieces))[self._lane :: self._settings.lanes]
        return [self._pieces[index] for index in order]

    def _open_piece(self) -> Iterator[Record | Fault]:
        if self._place >= len(self._order):
            return iter(())
        shard, part = self._order[self._place]
        return self._source.read(shard, part, self._block_number * self._settings.shuffle_block)

    def _read_block(self) -> list[Record | Fault]:
        block = list(islice(self._entries, self._settings.shuffle_block))
        if len(block) < 2:
            return block
        shard, part = self._order[self._place]
        generator = self._generator(f"block|{shard}|{part.index}|{self._block_number}")
        return [block[index] for index in generator.permutation(len(block))]

    def _generator(self, purpose: str) -> Any:
        return Draws(self._settings.seed, self._source.name, self._epoch).generator(purpose)


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
