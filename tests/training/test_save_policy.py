# SPDX-License-Identifier: Apache-2.0
"""When a run saves itself, which checkpoints stay, and when the job's time is over; without any training."""

import pytest

from unigen.config.schema import ExperimentConfig
from unigen.training.save_policy import SLURM_END, SavePolicy, TimeLimit

START = 1_000_000.0
HOUR = 3600.0


def limit(environment: dict[str, str] | None = None, **keys: float) -> TimeLimit:
    return TimeLimit.of(ExperimentConfig(name="x", output_dir="x", **keys), environment or {}, START)  # type: ignore[arg-type]


def test_steps_and_minutes_are_due_each_by_itself() -> None:
    config = ExperimentConfig(name="x", output_dir="x", checkpoint_every=100, checkpoint_every_minutes=30.0)
    policy = SavePolicy.of(config)
    assert policy.is_due(200, 1.0)
    assert not policy.is_due(201, 29 * 60.0)
    assert policy.is_due(201, 30 * 60.0)


def test_without_a_key_nothing_is_due() -> None:
    assert not any(SavePolicy().is_due(step, 1e9) for step in range(1, 1000))


def test_a_step_that_stays_for_good_is_saved_though_no_other_rule_asks_for_it() -> None:
    policy = SavePolicy(every_steps=300, keep_every=1000)
    assert [step for step in range(1, 2001) if policy.is_due(step, 0.0)] == [
        300,
        600,
        900,
        1000,
        1200,
        1500,
        1800,
        2000,
    ]


def test_the_newest_stay_and_the_multiples_of_keep_every() -> None:
    steps = [100, 200, 300, 400, 500, 600]
    assert SavePolicy(keep_last=2).superfluous(steps, 600) == [100, 200, 300, 400]
    assert SavePolicy(keep_last=2, keep_every=200).superfluous(steps, 600) == [100, 300]
    assert SavePolicy(keep_last=0, keep_every=200).superfluous(steps, 600) == []


def test_later_checkpoints_of_an_earlier_life_neither_go_nor_crowd_out_the_new_ones() -> None:
    assert SavePolicy(keep_last=1).superfluous([100, 200, 900], newest=200) == [100]


def test_the_end_of_a_slurm_job_is_kept_clear_of() -> None:
    found = limit({SLURM_END: str(int(START + 10 * HOUR))}, stop_before_limit_minutes=20.0)
    assert not found.is_near(START + 10 * HOUR - 1201)
    assert found.is_near(START + 10 * HOUR - 1200)


def test_a_limit_of_ones_own_goes_before_that_of_the_environment() -> None:
    found = limit({SLURM_END: str(int(START + 10 * HOUR))}, time_limit_minutes=120.0, stop_before_limit_minutes=20.0)
    assert not found.is_near(START + 99 * 60)
    assert found.is_near(START + 100 * 60)


def test_a_short_job_still_trains_for_three_quarters_of_its_time() -> None:
    found = limit(time_limit_minutes=8.0, stop_before_limit_minutes=30.0)
    assert not found.is_near(START + 5.9 * 60)
    assert found.is_near(START + 6 * 60)


@pytest.mark.parametrize("environment", [{}, {SLURM_END: str(int(START - 5))}, {SLURM_END: ""}])
def test_without_an_end_or_with_that_of_a_job_that_is_over_there_is_no_limit(environment: dict[str, str]) -> None:
    assert not limit(environment).is_near(START + 1e9)
