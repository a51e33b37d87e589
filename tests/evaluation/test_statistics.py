# SPDX-License-Identifier: Apache-2.0
"""Intervals cover the truth as often as they claim, and know that images of one prompt are not independent."""

import numpy as np
import pytest

from unigen.evaluation.statistics import clustered, estimate


def test_the_mean_is_over_strata_and_not_over_values() -> None:
    found = estimate([[1.0, 1.0], [1.0]], [[0.0]])
    assert found.value == 0.5


def test_the_interval_is_reproducible_and_holds_the_mean() -> None:
    values = clustered((index // 4, index % 3 == 0) for index in range(200))
    found = estimate(values)
    assert found == estimate(values)
    assert found.low < found.value < found.high
    assert estimate(values, seed=1) != found


def test_equal_images_of_a_prompt_count_once() -> None:
    rng = np.random.default_rng(0)
    prompts = (rng.random(60) < 0.5).tolist()
    one_each = estimate(clustered((index, value) for index, value in enumerate(prompts)))
    four_each = estimate(clustered((index, value) for index, value in enumerate(prompts) for _ in range(4)))
    as_if_independent = estimate(
        clustered((index, value) for index, value in enumerate(np.repeat(prompts, 4).tolist()))
    )
    assert four_each.interval == pytest.approx(one_each.interval)
    width = one_each.high - one_each.low
    assert as_if_independent.high - as_if_independent.low == pytest.approx(width / 2, rel=0.2)


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        rates = rng.beta(2, 2, 80)  # every prompt has a difficulty of its own
        found = estimate([list(map(float, rng.random(4) < rate)) for rate in rates])
        covered.append(found.low <= 0.5 <= found.high)
    assert 0.9 <= np.mean(covered) <= 0.99


def test_values_that_are_all_equal_have_an_interval_without_width() -> None:
    assert estimate([[1.0], [1.0]]).interval == [1.0, 1.0]
