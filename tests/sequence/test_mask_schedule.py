# SPDX-License-Identifier: Apache-2.0
"""Mask schedules: from all to nothing, as the paper counts, drawn by a generator alone."""

import math
from itertools import pairwise

import numpy as np
import pytest

from unigen.sequence.mask_schedule import SCHEDULES, draw_mask, masked_ratio, remasked_counts


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_falls_from_all_to_nothing(schedule: str) -> None:
    ratios = [masked_ratio(schedule, step / 100) for step in range(101)]
    assert ratios[0] == pytest.approx(1.0)
    assert ratios[-1] == pytest.approx(0.0, abs=1e-12)
    assert ratios == sorted(ratios, reverse=True)


def test_the_formulas() -> None:
    assert masked_ratio("cosine", 0.5) == pytest.approx(math.sqrt(0.5))
    assert masked_ratio("linear", 0.3) == pytest.approx(0.7)
    assert masked_ratio("square", 0.5) == pytest.approx(0.75)
    assert masked_ratio("sigmoid", 0.5) == pytest.approx(0.5)


def test_sixteen_and_fifty_steps_mask_again_what_the_released_sampler_did() -> None:
    sixteen = [254, 251, 244, 236, 225, 212, 197, 181, 162, 142, 120, 97, 74, 49, 25, 0]
    assert remasked_counts(256, 16, "cosine") == sixteen
    fifty = remasked_counts(256, 50, "cosine")
    assert fifty[:4] == [255, 254, 253, 252]  # the formula alone says 255 twice, but a step fixes at least one
    assert fifty[-4:] == [24, 16, 8, 0]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("length", "steps"), [(16, 4), (256, 50), (16, 16)])
def test_every_step_fixes_a_token_while_more_than_one_is_left(schedule: str, length: int, steps: int) -> None:
    counts = [length, *remasked_counts(length, steps, schedule)]
    assert all(later < earlier or earlier == 1 for earlier, later in pairwise(counts))
    assert counts[-1] == 0


def test_masks_follow_the_schedule_on_average_and_hide_at_least_one() -> None:
    generator = np.random.default_rng(0)
    shares = [draw_mask(generator, 256, "cosine").mean() for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(2 / math.pi, abs=0.02)
    assert min(shares) >= 1 / 256
    assert max(shares) == 1.0


def test_a_floor_holds() -> None:
    generator = np.random.default_rng(0)
    assert min(draw_mask(generator, 100, "cosine", 0.4).mean() for _ in range(300)) >= 0.4


def test_every_position_is_masked_as_often() -> None:
    generator = np.random.default_rng(1)
    shares = np.mean([draw_mask(generator, 8, "linear") for _ in range(4000)], axis=0)
    assert np.ptp(shares) < 0.05


def test_a_seed_gives_its_mask() -> None:
    first, second, other = (draw_mask(np.random.default_rng(seed), 64, "cosine") for seed in (3, 3, 4))
    assert (first == second).all()
    assert (first != other).any()
