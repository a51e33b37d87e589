# SPDX-License-Identifier: Apache-2.0
"""Figures are judged by their bounds, shown beside them, and written as JSON."""

import json
import math

import pytest
import torch

from unigen.bench.figures import Figure, Setting
from unigen.bench.table import figure_line, verdict_lines


@pytest.mark.parametrize(
    ("figure", "is_met"),
    [
        (Figure("a", 1.0), None),
        (Figure("a", 1.0, at_least=1.0), True),
        (Figure("a", 0.9, at_least=1.0), False),
        (Figure("a", 0.9, at_most=1.0), True),
        (Figure("a", 1.1, at_most=1.0), False),
        (Figure("a", math.nan, at_least=1.0), False),
        (Figure("a", math.nan, at_most=1.0), False),
    ],
)
def test_a_figure_is_judged_by_its_bounds(figure: Figure, is_met: bool | None) -> None:
    assert figure.is_met is is_met


def test_a_line_shows_the_value_beside_its_bounds_and_the_share_of_the_ceiling() -> None:
    line = figure_line(Figure("training/tokens", 41_500, "tokens/s", at_least=41_000, good=48_000, ceiling=103_000))
    for shown in ("training/tokens", "41,500 tokens/s", ">= 41,000", "good 48,000", "ceiling 103,000 (40%)", "met"):
        assert shown in line
    assert "MISSED" in figure_line(Figure("a", 0.5, at_least=1.0))


def test_missed_bounds_are_named() -> None:
    lines = verdict_lines([Figure("fast/enough", 2.0, at_least=1.0), Figure("too/slow", 0.5, at_least=1.0)])
    assert lines[0] == "1 of 2 bounds are missed:"
    assert "too/slow" in lines[1]
    assert verdict_lines([Figure("fast/enough", 2.0, at_least=1.0)]) == ["all 1 bounds are met"]


def test_json_holds_no_number_that_json_does_not_know() -> None:
    found = json.loads(json.dumps(Figure("a", math.inf, "x", at_most=1.0).to_json()))
    assert found == {"name": "a", "value": None, "unit": "x", "at_most": 1.0, "is_met": False}


def test_quick_runs_judge_no_time() -> None:
    cpu = torch.device("cpu")
    assert Setting(cpu).timed(1.3) == 1.3
    assert Setting(cpu, is_quick=True).timed(1.3) is None
