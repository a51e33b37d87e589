# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a record, how it is counted, and when it stops a run."""

from collections import Counter
from collections.abc import Iterable
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
    "too_long",
]

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

    def add(self, faults: Iterable[Fault], seen: int) -> None:
        """Count `faults` among `seen` more records."""
        self.seen += seen
        for fault in faults:
            self.counts[fault.cause] += 1
            kept = self.examples.setdefault(fault.cause, [])
            if len(kept) < EXAMPLES_PER_CAUSE:
                kept.append(fault)

    def check(self) -> None:
        """Stop where the bad share of at least `MINIMUM_SEEN` records is above `max_bad_fraction`.

        Raises:
            DataError: with the share, the causes and an example file of each.
        """
        if self.seen < MINIMUM_SEEN or self.bad <= self.max_bad_fraction * self.seen:
            return
        raise DataError(
            f"{self.bad} of {self.seen} records are bad ({self.bad / self.seen:.1%}, data.max_bad_fraction is "
            f"{self.max_bad_fraction:.1%}): {self.describe()}; mend the files or raise data.max_bad_fraction"
        )

    def describe(self) -> str:
        """The causes, most frequent first, each with its number and an example; one line."""
        parts = []
        for cause, count in self.counts.most_common():
            example = self.examples[cause][0]
            detail = f", {example.detail}" if example.detail else ""
            parts.append(f"{count} {cause} (such as {example.place}{detail})")
        return "; ".join(parts)

    def summary(self) -> dict[str, int]:
        """Numbers for the metrics: `data/records_seen`, and `data/bad/<cause>` for each cause that occurred."""
        return {"data/records_seen": self.seen, **{f"data/bad/{cause}": n for cause, n in sorted(self.counts.items())}}
