# SPDX-License-Identifier: Apache-2.0
"""Mutual nearest neighbours: the textbook's number, ties by lot in the mean, and what chance gives."""

import numpy as np
import pytest

from unigen.errors import EvaluationError
from unigen.evaluation.alignment.neighbours import (
    mutual_knn_alignment,
    neighbour_weights,
    permuted_alignments,
)
from unigen.reference.neighbours import mutual_knn_alignment_slowly


def random_rows(count: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def with_ties(count: int, width: int, seed: int) -> np.ndarray:
    """Few different rows, each several times."""
    return np.random.default_rng(seed).integers(0, 2, (count, width)).astype(np.float32)


@pytest.mark.parametrize("make", [random_rows, with_ties])
@pytest.mark.parametrize("k", [1, 4, 23])
def test_it_is_what_the_definition_says(make, k: int) -> None:  # type: ignore[no-untyped-def]
    x_ND, y_ND = make(24, 5, 0), make(24, 3, 1)
    found = mutual_knn_alignment(x_ND, y_ND, k)
    assert found == pytest.approx(mutual_knn_alignment_slowly(x_ND.tolist(), y_ND.tolist(), k), abs=1e-9)


def test_without_ties_it_counts_the_neighbours_in_common() -> None:
    x_ND, y_ND, k = random_rows(30, 6, 2), random_rows(30, 4, 3), 5
    sets = []
    for rows in (x_ND, y_ND):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        order = np.argsort(-(unit @ unit.T - 9 * np.eye(30)), axis=1)[:, :k]
        sets.append([set(line) for line in order.tolist()])
    common = [len(first & second) / k for first, second in zip(*sets, strict=True)]
    assert mutual_knn_alignment(x_ND, y_ND, k) == pytest.approx(np.mean(common))


def test_the_same_geometry_is_aligned_whatever_its_scale_and_axes() -> None:
    x_ND = random_rows(40, 6, 4)
    turn, _ = np.linalg.qr(random_rows(6, 6, 5))
    assert mutual_knn_alignment(x_ND, 7 * x_ND @ turn, 10) == pytest.approx(1.0, abs=1e-6)


def test_descriptions_that_have_nothing_in_common_are_aligned_by_chance() -> None:
    weights = [neighbour_weights(random_rows(300, 8, seed), 10) for seed in (6, 7)]
    permuted = permuted_alignments(*weights, 20, np.random.default_rng(0))
    assert permuted.mean() == pytest.approx(10 / 299, rel=0.1)
    assert mutual_knn_alignment(random_rows(300, 8, 6), random_rows(300, 8, 7), 10) == pytest.approx(10 / 299, rel=0.3)


def test_samples_that_are_all_alike_say_nothing() -> None:
    same = np.ones((20, 4), dtype=np.float32)
    assert mutual_knn_alignment(same, same, 3) == pytest.approx(3 / 19)
    assert mutual_knn_alignment(np.zeros_like(same), random_rows(20, 4, 8), 3) == pytest.approx(3 / 19)


def test_too_few_samples_and_broken_states_are_refused() -> None:
    x_ND = random_rows(5, 4, 0)
    for k in (0, 5):
        with pytest.raises(EvaluationError, match=f"5 samples have no {k} neighbours each"):
            mutual_knn_alignment(x_ND, x_ND, k)
    x_ND[2, 1] = np.nan
    with pytest.raises(EvaluationError, match="not finite"):
        mutual_knn_alignment(x_ND, x_ND, 2)
