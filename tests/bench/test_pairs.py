# SPDX-License-Identifier: Apache-2.0
"""A pair compares results and operations in one run, and takes turns when it times."""

import torch

from unigen.bench.figures import Figure, Setting
from unigen.bench.pairs import Expected, Pair, PairedTimes, paired_cpu_seconds

SETTING = Setting(torch.device("cpu"), is_quick=True)


def figures(fast_flops: float = 1000.0) -> dict[str, Figure]:
    """Two products of 5 x 10 x 10 against one."""
    left, right = torch.ones(5, 10), torch.ones(10, 10)
    pair = Pair(
        "pair",
        fast=lambda: left @ right,
        twin=lambda: (left @ right) + (left @ right) - 9,
        difference=lambda one, other: float((one - other).abs().max()),
        expected=Expected(fast_flops, 2000.0),
    )
    return {figure.name: figure for figure in pair.figures(SETTING, flop_floor=1.5, time_floor=1.3, tolerance=0.5)}


def test_a_pair_reports_difference_operations_and_time() -> None:
    found = figures()
    assert found["pair/flop_ratio"].value == 2.0
    assert found["pair/fast_flops_off_formula"].value == 0.0
    assert found["pair/difference"].value == 1.0
    assert found["pair/difference"].is_met is False, "the results differ by more than the tolerance"
    assert found["pair/time_ratio"].is_met is None, "quick"


def test_counts_that_leave_the_formula_are_a_failure() -> None:
    assert figures(fast_flops=1015.0)["pair/fast_flops_off_formula"].is_met
    assert figures(fast_flops=1030.0)["pair/fast_flops_off_formula"].is_met is False


def test_pairs_are_interleaved_in_one_thread_which_is_given_back() -> None:
    before = torch.get_num_threads()
    order: list[tuple[str, int]] = []
    times = paired_cpu_seconds(
        lambda: order.append(("fast", torch.get_num_threads())),
        lambda: order.append(("twin", torch.get_num_threads())),
        3,
    )
    assert order == [("fast", 1), ("twin", 1)] * 3
    assert torch.get_num_threads() == before
    assert len(times.ratios) == 3


def test_the_ratio_is_the_median_of_the_ratios_of_pairs() -> None:
    # The machine was ten times slower during the last pair.
    times = PairedTimes([1.0, 1.0, 10.0], [2.0, 3.0, 30.0])
    assert times.ratio == 3.0
