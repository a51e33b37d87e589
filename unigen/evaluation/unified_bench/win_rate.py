# SPDX-License-Identifier: Apache-2.0
"""How often a judge prefers one model's captions to another's (Unified-Bench, protocol 2), from verdicts in both orders.

An image gives 1 where both orders prefer `a`, 0 where both prefer `b`, and the mean of its two verdicts else (a tie is a half).
So a judge that always prefers the first place gives a half to everybody.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unigen.errors import EvaluationError
from unigen.evaluation.statistics import clustered, estimate

POINTS = {"a": 1.0, "tie": 0.5, "b": 0.0}
FIRST = ("a", "b")
"""Who is shown first in each of the two orders."""


def score_duels(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The win rate of `a` with its 95% interval over images, and what it rests on.

    Images with a reply without a verdict are in no rate (the other order alone would favour a place): they are counted.

    Args:
        lines: of each image `image` and `verdicts`, one an order: `a`, `b`, `tie` or None.
    Raises:
        EvaluationError: no image has both verdicts.
    """
    judged = [line for line in lines if None not in line["verdicts"]]
    if not judged:
        raise EvaluationError(f"none of {len(lines)} images has a verdict in both orders; look at the judge's replies")
    points = {line["image"]: sum(POINTS[one] for one in line["verdicts"]) / 2 for line in judged}
    rate = estimate(clustered(points.items()))
    verdicts = [tuple(line["verdicts"]) for line in judged]
    decided = [(one, first) for pair in verdicts for one, first in zip(pair, FIRST, strict=True) if one != "tie"]
    return {
        "win_rate": {"mean": rate.value, "low": rate.low, "high": rate.high},
        "wins": verdicts.count(("a", "a")),
        "losses": verdicts.count(("b", "b")),
        "ties": verdicts.count(("tie", "tie")),
        "order_dependent": sum(first != second for first, second in verdicts),
        "first_place_preferred": sum(one == first for one, first in decided) / len(decided) if decided else None,
        "num_images": len(lines),
        "num_judged": len(judged),
        "num_unparseable_replies": sum(line["verdicts"].count(None) for line in lines),
    }
