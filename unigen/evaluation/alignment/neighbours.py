# SPDX-License-Identifier: Apache-2.0
"""Mutual k-nearest-neighbour alignment of two descriptions of the same samples (Huh et al., arXiv 2405.07987, appendix A).

For each sample, the share of its k nearest neighbours that it has in both descriptions, nearest by cosine; the alignment is the
mean over samples. Legend: N samples, D width (which may differ between the two), P permutations.
"""

import numpy as np

from unigen.errors import EvaluationError

_DECIMALS = 9
"""Of a cosine that count: equal samples tie, whatever the order of a sum made of them."""


def mutual_knn_alignment(x_ND: np.ndarray, y_ND: np.ndarray, k: int) -> float:
    """The alignment, in [0, 1]; k / (N - 1) for descriptions that have nothing to do with each other.

    Raises:
        EvaluationError: k is not between 1 and N - 1, or a value is not finite.
    """
    return float(overlaps(neighbour_weights(x_ND, k), neighbour_weights(y_ND, k)).mean())


def neighbour_weights(features_ND: np.ndarray, k: int) -> np.ndarray:
    """How far sample j is among the k nearest of sample i, (N, N): 1 or 0, and each row adds up to k.

    Samples that tie for the last places share them evenly, as the mean over all ways to break the tie has it: else equal samples
    would have the neighbours that stand first, in both descriptions the same ones.

    Raises:
        EvaluationError: k is not between 1 and N - 1, or a value is not finite.
    """
    num_samples = len(features_ND)
    if not 0 < k < num_samples:
        raise EvaluationError(
            f"{num_samples} samples have no {k} neighbours each; give more samples, or fewer neighbours"
        )
    if not np.isfinite(features_ND).all():
        raise EvaluationError("the states to be compared hold values that are not finite; the model cannot be used")
    values_ND = features_ND.astype(np.float64)
    lengths_N1 = np.linalg.norm(values_ND, axis=1, keepdims=True)
    unit_ND = values_ND / np.where(lengths_N1 > 0, lengths_N1, 1)
    cosine_NN = np.round(unit_ND @ unit_ND.T, _DECIMALS)
    np.fill_diagonal(cosine_NN, -np.inf)  # nobody is a neighbour of itself
    last_N1 = np.partition(cosine_NN, num_samples - k, axis=1)[:, [num_samples - k]]
    is_nearer_NN, is_tied_NN = cosine_NN > last_N1, cosine_NN == last_N1
    places_N1 = k - is_nearer_NN.sum(axis=1, keepdims=True)
    return is_nearer_NN + is_tied_NN * (places_N1 / is_tied_NN.sum(axis=1, keepdims=True))


def overlaps(x_weights_NN: np.ndarray, y_weights_NN: np.ndarray) -> np.ndarray:
    """Of each sample the share of neighbours that both descriptions give it, (N,), from `neighbour_weights`."""
    return (x_weights_NN * y_weights_NN).sum(axis=1) / x_weights_NN.sum(axis=1)


def permuted_alignments(
    x_weights_NN: np.ndarray, y_weights_NN: np.ndarray, num_permutations: int, rng: np.random.Generator
) -> np.ndarray:
    """The alignments (P,) of descriptions whose pairs were torn apart: what chance gives with these very neighbourhoods."""
    orders = [rng.permutation(len(y_weights_NN)) for _ in range(num_permutations)]
    return np.array([overlaps(x_weights_NN, y_weights_NN[np.ix_(order, order)]).mean() for order in orders])
