# SPDX-License-Identifier: Apache-2.0
"""The learning rate over a run."""

import pytest

from unigen.config.schema import ScheduleConfig
from unigen.training.schedule import learning_rate_factor


def test_the_rate_rises_from_zero_to_its_peak_over_the_warm_up() -> None:
    schedule = ScheduleConfig(warmup_steps=4)
    assert [learning_rate_factor(schedule, step, 100) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_the_warm_up_may_be_a_share_of_the_run() -> None:
    share, steps = ScheduleConfig(warmup_ratio=0.1), ScheduleConfig(warmup_steps=21)
    for step in range(212):
        assert learning_rate_factor(share, step, 212) == learning_rate_factor(steps, step, 212)


def test_half_a_cosine_leads_down_to_the_floor() -> None:
    schedule = ScheduleConfig(warmup_steps=10, min_ratio=0.2)
    rates = [learning_rate_factor(schedule, step, 110) for step in range(10, 111)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 1.0
    assert rates[50] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2)


def test_a_constant_rate_stays_at_its_peak() -> None:
    schedule = ScheduleConfig(name="constant", warmup_steps=1)
    assert {learning_rate_factor(schedule, step, 10) for step in range(1, 20)} == {1.0}
