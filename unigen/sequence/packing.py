# SPDX-License-Identifier: Apache-2.0
"""Packing of whole documents into rows of a fixed token budget."""

import bisect
import math
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: indices of the documents of each row, rows and documents in order of first index.

    Deterministic; at most 11/9 of the optimal number of rows plus one (Johnson 1973).

    Raises:
        ValueError: a document is longer than a row.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"a document of {length} tokens does not fit a row of {capacity}")
        place = bisect.bisect_left(free, (length, -1))
        if place == len(free):
            left, row = capacity, len(rows)
            rows.append([])
        else:
            left, row = free.pop(place)
        rows[row].append(index)
        bisect.insort(free, (left - length, row))
    return sorted(sorted(row) for row in rows)


def pack_evenly(lengths: Sequence[int], capacity: int, multiple: int) -> tuple[list[list[int]], int]:
    """As few rows as `pack` makes, as equally full as it can: the rows, and the one length that all of them get.

    The length is the least multiple of `multiple` into which the documents go in so many rows, at most `capacity`.

    Raises:
        ValueError: a document is longer than a row.
    """
    rows = pack(lengths, capacity)
    if not rows:
        return rows, capacity
    least = max(max(lengths), math.ceil(sum(lengths) / len(rows)))
    for length in range(math.ceil(least / multiple) * multiple, capacity, multiple):
        even = pack(lengths, length)
        if len(even) <= len(rows):
            return even, length
    return rows, capacity
