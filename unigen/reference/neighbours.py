# SPDX-License-Identifier: Apache-2.0
"""Mutual k-nearest-neighbour alignment written plainly: sample by sample, neighbour by neighbour, in Python's own numbers."""

from collections.abc import Sequence
from math import sqrt

_EQUAL = 1e-9

Rows = Sequence[Sequence[float]]


def mutual_knn_alignment_slowly(x_rows: Rows, y_rows: Rows, k: int) -> float:
    """The number that `evaluation.alignment.neighbours.mutual_knn_alignment` must give."""
    shares = []
    for sample in range(len(x_rows)):
        others = [other for other in range(len(x_rows)) if other != sample]
        common = sum(_prob(x_rows, sample, other, k) * _prob(y_rows, sample, other, k) for other in others)
        shares.append(common / k)
    return sum(shares) / len(shares)


def _prob(rows: Rows, sample: int, other: int, k: int) -> float:
    """How probable it is that `other` is among the k nearest of `sample`, where ties are broken by lot."""
    others = [third for third in range(len(rows)) if third != sample]
    own = _cosine(rows[sample], rows[other])
    cosines = [_cosine(rows[sample], rows[third]) for third in others]
    num_nearer = sum(cosine > own + _EQUAL for cosine in cosines)
    num_equal = sum(abs(cosine - own) <= _EQUAL for cosine in cosines)
    return min(1.0, max(0.0, (k - num_nearer) / num_equal))


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    lengths = sqrt(sum(value * value for value in first)) * sqrt(sum(value * value for value in second))
    return sum(a * b for a, b in zip(first, second, strict=True)) / lengths if lengths else 0.0
