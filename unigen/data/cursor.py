# SPDX-License-Identifier: Apache-2.0
"""A lane's way through one source: which shards, in what order, shuffled how; a few integers say where it is."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from unigen.data.draws import Draws
from unigen.data.faults import Fault
from unigen.data.records import Part, Record, Source
from unigen.errors import DataError

Position = tuple[int, int, int]
"""Epoch, index in this lane's shards of that epoch, entries of that shard taken."""

_SPLIT_BELOW = 4
"""With fewer shards per lane than this and no even division, shards are split so that all lanes get the same amount."""


@dataclass(frozen=True)
class LaneSettings:
    """What all lanes of a run have in common."""

    lanes: int
    seed: int
    shuffle_block: int


def parts_per_shard(num_shards: int, lanes: int) -> int:
    """Into how many pieces the shards of a source are split: 1, or where there are few as many as give all lanes the
    same number of pieces."""
    is_even = num_shards % lanes == 0 or num_shards >= _SPLIT_BELOW * lanes
    return 1 if is_even else lanes // math.gcd(num_shards, lanes)


class Cursor:
    """A lane's way through one source, epoch after epoch.

    An epoch is the lane's share of a permutation of the pieces; inside a piece, blocks of entries are shuffled.
    """

    def __init__(self, source: Source, lane: int, settings: LaneSettings, position: Position = (0, 0, 0)) -> None:
        self._source = source
        self._lane = lane
        self._settings = settings
        self._num_shards = len(source.shards)
        self._parts = parts_per_shard(self._num_shards, settings.lanes)
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

    def _order_of_epoch(self) -> np.ndarray:
        """Numbers of this lane's pieces; piece n is part n % parts of shard n // parts."""
        pieces = self._generator("shards").permutation(self._num_shards * self._parts)
        return pieces[self._lane :: self._settings.lanes].copy()  # not a view, which would keep all of them

    def _piece(self) -> tuple[int, Part]:
        shard, index = divmod(int(self._order[self._place]), self._parts)
        return shard, Part(index, self._parts)

    def _open_piece(self) -> Iterator[Record | Fault]:
        if self._place >= len(self._order):
            return iter(())
        shard, part = self._piece()
        return self._source.read(shard, part, self._block_number * self._settings.shuffle_block)

    def _read_block(self) -> list[Record | Fault]:
        block = list(islice(self._entries, self._settings.shuffle_block))
        if len(block) < 2:
            return block
        shard, part = self._piece()
        generator = self._generator(f"block|{shard}|{part.index}|{self._block_number}")
        return [block[index] for index in generator.permutation(len(block))]

    def _generator(self, purpose: str) -> np.random.Generator:
        return Draws(self._settings.seed, self._source.name, self._epoch).generator(purpose)
