# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a record, how it is counted, and when it stops a run."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

from unigen.errors import DataError

Cause = Literal[
    "missing_shard",
    "unreadable_shard",
    "truncated_shard",
    "not_json",
    "missing_key",
    "missing_image",
    "unreadable_image",
    "enormous_image",
    "empty_caption",
    "cjk_caption",
    "empty_text",
    "bad_conversation",
    "bad_preference",
    "bad_prompt",
    "too_long",
]

LEFT_OUT: frozenset[Cause] = frozenset({"too_long", "cjk_caption"})
"""Whole records that a run does not take, by its row length or its source's settings: counted, but nothing is wrong with them."""

MINIMUM_SEEN = 100
"""Records before the fraction is judged, so that one bad record of the first ten does not stop a run by chance."""
EXAMPLES_PER_CAUSE = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """One record (or the rest of one shard) that was skipped."""

    cause: Cause
    place: str
    """The file, and where it helps the record in it."""
    detail: str = ""


class SampleRefused(Exception):  # noqa: N818  a refusal is counted, not reported as an error
    """Raised by whoever decodes or prepares a record that cannot be used; the stream counts it and takes the next one."""

    def __init__(self, cause: Cause, detail: str = "") -> None:
        super().__init__(cause, detail)
        self.cause: Cause = cause
        self.detail = detail


@dataclass
class FaultLog:
    """Faults counted per cause, with a few examples of each."""

    max_bad_fraction: float
    seen: int = 0
    """Records read, good and bad."""
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Fault]] = field(default_factory=dict)

    @property
    def bad(self) -> int:
        return self.counts.total()

    @property
    def damaged(self) -> int:
        """Those with something wrong."""
        return sum(count for cause, count in self.counts.items() if cause not in LEFT_OUT)

    def add(self, faults: Iterable[Fault], seen: int) -> None:
        """Count `faults` among `seen` more records."""
        self.seen += seen
        for fault in faults:
            self.counts[fault.cause] += 1
            kept = self.examples.setdefault(fault.cause, [])
            if len(kept) < EXAMPLES_PER_CAUSE:
                kept.append(fault)

    def check(self) -> None:
        """Stop where the damaged share of at least `MINIMUM_SEEN` records is above `max_bad_fraction`.

        Raises:
            DataError: with the share, the causes and an example file of each.
        """
        damaged = self.damaged
        if self.seen < MINIMUM_SEEN or damaged <= self.max_bad_fraction * self.seen:
            return
        raise DataError(
            f"{damaged} of {self.seen} records are bad ({damaged / self.seen:.1%}, data.max_bad_fraction is "
            f"{self.max_bad_fraction:.1%}): {self.describe(LEFT_OUT)}; mend the files or raise data.max_bad_fraction"
        )

    def describe(self, without: Collection[str] = ()) -> str:
        """The causes, most frequent first, each with its number and an example; one line.

        Args:
            without: causes that are not said.
        """
        parts = []
        for cause, count in self.counts.most_common():
            if cause in without:
                continue
            example = self.examples[cause][0]
            detail = f", {example.detail}" if example.detail else ""
            parts.append(f"{count} {cause} (such as {example.place}{detail})")
        return "; ".join(parts)

    def summary(self) -> dict[str, int]:
        """Numbers for the metrics: `data/records_seen`, and `data/bad/<cause>` for each cause that occurred."""
        return {"data/records_seen": self.seen, **{f"data/bad/{cause}": n for cause, n in sorted(self.counts.items())}}
