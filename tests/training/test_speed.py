# SPDX-License-Identifier: Apache-2.0
"""What the speed meter counts."""

import pytest

from unigen.data.batch import Sample, collate
from unigen.sequence.layout import Document, text
from unigen.training.speed import SpeedMeter, Stopwatch

BATCH = collate([[Sample("a", Document(0, (text([1, 2, 3, 4]),)))], [Sample("b", Document(0, (text([5]),)))]])


def _step(meter: SpeedMeter, seconds: float) -> None:
    meter.count_batch(BATCH, flops=1e6)
    meter.count_step(num_samples=2, seconds=seconds, data_seconds=seconds / 4)


def test_the_first_step_is_left_out() -> None:
    meter = SpeedMeter(peak=None)
    _step(meter, seconds=100.0)
    assert meter.report(1) == {}
    _step(meter, seconds=1.0)
    assert meter.report(1)["throughput/tokens_per_second"] == pytest.approx(5.0)


def test_rates_are_over_all_ranks_and_shares_are_not() -> None:
    meter = SpeedMeter(peak=1e7)
    for seconds in (9.0, 2.0, 2.0):
        _step(meter, seconds)
    report = meter.report(world_size=4)
    assert report["throughput/tokens_per_second"] == pytest.approx(4 * 10 / 4)
    assert report["throughput/samples_per_second"] == pytest.approx(4 * 4 / 4)
    assert report["throughput/step_seconds"] == pytest.approx(2.0)
    assert report["throughput/data_wait_fraction"] == pytest.approx(0.25)
    assert report["throughput/useful_token_fraction"] == pytest.approx(5 / 8)
    assert report["throughput/model_flops_utilization"] == pytest.approx(2e6 / 4 / 1e7)


def test_a_report_begins_anew() -> None:
    meter = SpeedMeter(peak=None)
    for _ in range(3):
        _step(meter, 1.0)
    assert meter.report(1) != {}
    assert meter.report(1) == {}


def test_a_stopwatch_measures_since_it_was_last_asked() -> None:
    watch = Stopwatch()
    first = watch.lap()
    assert 0 <= watch.lap() <= first + 1.0
