# SPDX-License-Identifier: Apache-2.0
"""The work of a benchmark as a list of items. Names, seeds, shares and resuming all follow from it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.data.json_files import numbered_lines
from unigen.errors import EvaluationError
from unigen.generation.seeds import image_seed


@dataclass(frozen=True)
class Item:
    """One thing to do: sample number `sample` of entry number `index` of the benchmark's file."""

    index: int
    sample: int
    seed: int

    @property
    def item_id(self) -> str:
        """Stable name, which sorts as the items do."""
        return f"{self.index:05d}/{self.sample:05d}"


def expand(benchmark: str, num_entries: int, num_samples: int, base_seed: int) -> list[Item]:
    """All items of a benchmark, in order; a seed depends on nothing but the base seed and the item."""
    return [
        Item(index, sample, image_seed(base_seed, f"{benchmark}|{index:05d}", sample))
        for index in range(num_entries)
        for sample in range(num_samples)
    ]


def share(items: Sequence[Item], rank: int, world_size: int) -> list[Item]:
    """The items of one rank: every `world_size`-th."""
    return list(items[rank::world_size])


def read_entries(path: Path, needed: Sequence[str], remedy: str) -> list[dict[str, Any]]:
    """The entries of a benchmark's JSONL file, each with the `needed` keys.

    Raises:
        EvaluationError: no such file, a line that is not such an entry, or no line at all.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"cannot read {path} ({error.strerror}); {remedy}") from error
    entries = []
    for number, line in numbered_lines(text):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise EvaluationError(f"{path}, line {number} is not JSON: {error}; {remedy}") from error
        missing = [key for key in needed if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise EvaluationError(f"{path}, line {number} has no {missing[0]!r}; {remedy}")
        entries.append(entry)
    if not entries:
        raise EvaluationError(f"{path} is empty; {remedy}")
    return entries
