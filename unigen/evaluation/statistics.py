# SPDX-License-Identifier: Apache-2.0
"""Means with their uncertainty. Images of one prompt, or questions about one image, are one cluster and no more than that.

Legend: R resamples, C clusters of a stratum.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 2000
LEVEL = 0.95

Clusters = Sequence[Sequence[float]]
"""The values of one stratum, grouped by what they have in common."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> list[float]:
        return [self.low, self.high]


def clustered(pairs: Iterable[tuple[Hashable, float]]) -> Clusters:
    """Values grouped by their key."""
    groups: dict[Hashable, list[float]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(float(value))
    return list(groups.values())


def estimate(*strata: Clusters, seed: int = 0) -> Estimate:
    """The unweighted mean of the strata's means, with a percentile bootstrap over the clusters inside each stratum.

    The same values and seed give the same interval. Where all values are equal the interval has no width.
    """
    assert strata
    assert all(strata), "every stratum needs a value"
    rng = np.random.default_rng(seed)
    means = [_mean(clusters) for clusters in strata]
    resampled_R = np.mean([_resampled_means(clusters, rng) for clusters in strata], axis=0)
    low, high = np.quantile(resampled_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(np.mean(means)), float(low), float(high))


def _mean(clusters: Clusters) -> float:
    values = [value for cluster in clusters for value in cluster]
    return sum(values) / len(values)


def _resampled_means(clusters: Clusters, rng: np.random.Generator) -> np.ndarray:
    sums_C = np.array([sum(cluster) for cluster in clusters])
    counts_C = np.array([len(cluster) for cluster in clusters])
    chosen_RC = rng.integers(len(clusters), size=(NUM_RESAMPLES, len(clusters)))
    return sums_C[chosen_RC].sum(axis=1) / counts_C[chosen_RC].sum(axis=1)
