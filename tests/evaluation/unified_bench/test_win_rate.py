# SPDX-License-Identifier: Apache-2.0
"""Win rates out of verdicts in both orders: ties, preferred places and replies without a verdict."""

from typing import Any

import pytest

from unigen.errors import EvaluationError
from unigen.evaluation.unified_bench.win_rate import score_duels


def lines(*verdicts: tuple[str | None, str | None]) -> list[dict[str, Any]]:
    return [{"image": f"{number}.png", "verdicts": list(pair)} for number, pair in enumerate(verdicts)]


def test_a_win_counts_one_a_tie_a_half_and_a_loss_nothing() -> None:
    found = score_duels(lines(("a", "a"), ("a", "a"), ("b", "b"), ("tie", "tie"), ("a", "tie")))
    assert found["win_rate"]["mean"] == pytest.approx((1 + 1 + 0 + 0.5 + 0.75) / 5)
    assert found["win_rate"]["low"] < found["win_rate"]["mean"] < found["win_rate"]["high"]
    assert (found["wins"], found["losses"], found["ties"], found["order_dependent"]) == (2, 1, 1, 1)


def test_a_judge_that_goes_by_the_place_gives_a_half_and_is_found_out() -> None:
    found = score_duels(lines(*[("a", "b")] * 6))
    assert found["win_rate"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert (found["order_dependent"], found["first_place_preferred"]) == (6, 1.0)
    assert score_duels(lines(("a", "a"), ("b", "b")))["first_place_preferred"] == 0.5


def test_exchanging_the_two_sides_exchanges_the_rate() -> None:
    pairs = [("a", "a"), ("a", "b"), ("b", "tie"), ("tie", "a")]
    other = {"a": "b", "b": "a", "tie": "tie"}
    exchanged = [
        (other[second], other[first]) for first, second in pairs
    ]  # with the sides the orders are exchanged too
    rate, back = score_duels(lines(*pairs)), score_duels(lines(*exchanged))
    assert rate["win_rate"]["mean"] == pytest.approx(1 - back["win_rate"]["mean"])
    assert rate["first_place_preferred"] == back["first_place_preferred"]


def test_replies_without_a_verdict_are_counted_and_their_images_left_out() -> None:
    found = score_duels(lines(("a", "a"), (None, "b"), (None, None)))
    assert found["win_rate"]["mean"] == 1.0
    assert (found["num_images"], found["num_judged"], found["num_unparseable_replies"]) == (3, 1, 3)
    with pytest.raises(EvaluationError, match="none of 1 images has a verdict in both orders"):
        score_duels(lines((None, "a")))
