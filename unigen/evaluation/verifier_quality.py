# SPDX-License-Identifier: Apache-2.0
"""How good a verifier is: what it makes of images of which the truth is known."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats


def verifier_quality(lines: Sequence[Mapping[str, Any]], truth: Sequence[bool] | None) -> dict[str, Any]:
    """Facts about the ratings of candidates; with the truth about each, how well they tell good images from bad ones.

    An image is accepted if all its questions were answered with yes. Where all images are good, or all bad, nothing can be
    told apart, and those numbers are None.
    """
    facts = {
        "num_rated": len(lines),
        "parse_failures": sum(not line["is_parsed"] for line in lines),
        "accepted": float(np.mean([line["num_yes"] == line["num_questions"] for line in lines])),
    }
    if truth is None:
        return facts
    accepted = [line["num_yes"] == line["num_questions"] for line in lines]
    graded = [(line["score"], line["probability"]) for line in lines]
    return {
        **facts,
        "correct": float(np.mean(truth)),
        "balanced_accuracy": balanced_accuracy(accepted, truth),
        "auc": area_under_curve(graded, truth),
    }


def balanced_accuracy(accepted: Sequence[bool], truth: Sequence[bool]) -> float | None:
    """Mean of the shares of good images accepted and of bad ones refused; None where either kind is missing."""
    hits = {kind: [a == t for a, t in zip(accepted, truth, strict=True) if t is kind] for kind in (True, False)}
    if not all(hits.values()):
        return None
    return float(np.mean([np.mean(found) for found in hits.values()]))


def area_under_curve(graded: Sequence[tuple[float, float]], truth: Sequence[bool]) -> float | None:
    """Probability that a good image is graded above a bad one, a tie counting half; grades are compared part by part."""
    is_good = np.asarray(truth, dtype=bool)
    num_good, num_bad = int(is_good.sum()), int((~is_good).sum())
    if not num_good or not num_bad:
        return None
    place = {grade: number for number, grade in enumerate(sorted(set(graded)))}
    ranks = stats.rankdata([place[grade] for grade in graded])
    return float((ranks[is_good].sum() - num_good * (num_good + 1) / 2) / (num_good * num_bad))
