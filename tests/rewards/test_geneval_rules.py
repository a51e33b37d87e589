# SPDX-License-Identifier: Apache-2.0
"""GenEval's decision rule, case by case."""

from typing import Any

import numpy as np
import pytest

from unigen.data.detection import Detection
from unigen.errors import EvaluationError
from unigen.rewards.geneval_rules import (
    Thresholds,
    candidates_for_color,
    group_by_class,
    judge,
    overlap,
    relative_position,
)

Box = tuple[float, float, float, float]


def found(name: str, score: float = 0.95, color: str | None = None, box: Box = (0, 0, 10, 10)) -> Detection:
    return Detection(name, box, score, color)


def wanted(tag: str, *include: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tag": tag, "include": list(include), "prompt": "", **more}


COUNT_TWO = wanted("counting", {"class": "cat", "count": 2}, exclude=[{"class": "cat", "count": 3}])
RED_CAT = wanted("colors", {"class": "cat", "count": 1, "color": "red"})
CAT_LEFT_OF_DOG = wanted(
    "position", {"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}
)


def test_an_object_at_the_threshold_does_not_count() -> None:
    prompt = wanted("single_object", {"class": "cat", "count": 1})
    assert not judge(prompt, [found("cat", 0.3)]).correct
    assert judge(prompt, [found("cat", 0.301)]).correct
    assert judge(prompt, [found("cat", 0.2)], Thresholds(score=0.1)).correct


def test_counting_takes_its_own_threshold_and_refuses_one_too_many() -> None:
    assert judge(COUNT_TWO, [found("cat"), found("cat"), found("cat", 0.8)]).correct
    assert not judge(COUNT_TWO, [found("cat"), found("cat", 0.8)]).correct
    assert not judge(COUNT_TWO, [found("cat")] * 3).correct


def test_no_more_objects_of_a_class_than_the_cap_are_counted() -> None:
    prompt = wanted("counting", {"class": "cat", "count": 2}, exclude=[{"class": "cat", "count": 17}])
    assert judge(prompt, [found("cat")] * 20).correct
    assert not judge(prompt, [found("cat")] * 20, Thresholds(max_objects_per_class=17)).correct


def test_only_the_best_object_is_asked_for_its_colour() -> None:
    red, blue = found("cat", 0.5, "red"), found("cat", 0.9, "blue")
    assert not judge(RED_CAT, [red, blue]).correct
    assert judge(RED_CAT, [red]).correct


def test_of_two_equal_scores_the_later_detection_wins() -> None:
    red, blue = found("cat", 0.9, "red"), found("cat", 0.9, "blue")
    assert judge(RED_CAT, [blue, red]).correct
    assert not judge(RED_CAT, [red, blue]).correct


def test_position_is_that_of_the_second_item_seen_from_the_first() -> None:
    cat, dog = found("cat", box=(0, 0, 10, 10)), found("dog", box=(50, 0, 60, 10))
    assert judge(CAT_LEFT_OF_DOG, [cat, dog]).correct
    swapped = [found("cat", box=dog.box), found("dog", box=cat.box)]
    assert not judge(CAT_LEFT_OF_DOG, swapped).correct


def test_position_without_its_reference_object_is_wrong_and_says_so() -> None:
    verdict = judge(CAT_LEFT_OF_DOG, [found("cat")])
    assert not verdict.correct
    assert "expected dog>=1" in verdict.reason
    assert "no target for cat" in verdict.reason


def test_a_diagonal_holds_two_relations_and_a_small_offset_none() -> None:
    assert relative_position((0, 0, 10, 10), (50, 50, 60, 60)) == {"left of", "above"}
    assert relative_position((50, 10, 60, 20), (0, 0, 10, 10)) == {"right of"}
    assert relative_position((1, 1, 11, 11), (0, 0, 10, 10)) == set()
    assert relative_position((0, 0, 10, 10), (0, 0, 10, 10)) == set()


@pytest.mark.parametrize("position", [["near", 0], ["left of", 1]])
def test_metadata_of_another_schema_is_refused(position: list[Any]) -> None:
    prompt = wanted("position", {"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": position})
    with pytest.raises(EvaluationError, match="position"):
        judge(prompt, [found("cat"), found("dog")])
    with pytest.raises(EvaluationError, match="count"):
        judge(wanted("single_object", {"class": "dog"}), [])


def test_boxes_overlap_with_their_ends_counted_as_inside() -> None:
    assert overlap((0, 0, 9, 9), (0, 0, 9, 9)) == 1
    assert overlap((0, 0, 9, 9), (10, 0, 19, 9)) == 0
    assert overlap((0, 0, 9, 9), (9, 0, 18, 9)) == pytest.approx(10 / 190)  # one column of ten is shared
    assert overlap((0, 0, 9, 9), (5, 5, 14, 14)) == pytest.approx(25 / 175)


def test_of_overlapping_detections_the_better_stays_and_by_default_all_do() -> None:
    prompt = wanted("single_object", {"class": "cat", "count": 1})
    cats = [
        found("cat", 0.7, box=(1, 0, 11, 10)),
        found("cat", 0.9, box=(0, 0, 10, 10)),
        found("cat", 0.8, box=(30, 0, 40, 10)),
        found("dog", 0.5, box=(0, 0, 10, 10)),
    ]
    assert [one.score for one in group_by_class(prompt, cats, Thresholds())["cat"]] == [0.9, 0.8, 0.7]
    fewer = group_by_class(prompt, cats, Thresholds(max_overlap=0.5))
    assert [one.score for one in fewer["cat"]] == [0.9, 0.8]
    assert len(fewer["dog"]) == 1  # classes do not hide each other
    share = overlap(cats[0].box, cats[1].box)
    assert len(group_by_class(prompt, cats, Thresholds(max_overlap=share))["cat"]) == 2
    assert len(group_by_class(prompt, cats, Thresholds(max_overlap=share + 1e-6))["cat"]) == 3


def test_the_cap_is_counted_before_overlaps_are_dropped() -> None:
    prompt = wanted("single_object", {"class": "cat", "count": 1})
    cats = [found("cat", 0.9), found("cat", 0.8), found("cat", 0.7, box=(50, 50, 60, 60))]
    kept = group_by_class(prompt, cats, Thresholds(max_overlap=0.5, max_objects_per_class=2))
    assert [one.score for one in kept["cat"]] == [0.9]


def test_colours_are_wanted_of_the_best_detections_where_there_are_enough() -> None:
    two_red = wanted("colors", {"class": "cat", "count": 2, "color": "red"}, {"class": "dog", "count": 1})
    cats = [found("cat", score) for score in (0.5, 0.9, 0.7)]
    assert [one.score for one in candidates_for_color(two_red, [*cats, found("dog")], Thresholds())] == [0.9, 0.7]
    assert candidates_for_color(two_red, cats[:1], Thresholds()) == []


RED_CAT_AND_DOG = wanted("color_attr", {"class": "cat", "count": 1, "color": "red"}, {"class": "dog", "count": 1})


@pytest.mark.parametrize(
    ("prompt", "detections", "share"),
    [
        (RED_CAT_AND_DOG, [found("cat", color="red"), found("dog")], 1.0),
        (RED_CAT_AND_DOG, [found("cat", color="blue"), found("dog")], 2 / 3),
        (RED_CAT_AND_DOG, [found("dog")], 1 / 3),
        (RED_CAT_AND_DOG, [], 0.0),
        (CAT_LEFT_OF_DOG, [found("dog"), found("cat")], 2 / 3),
        (CAT_LEFT_OF_DOG, [found("cat")], 1 / 3),
        (COUNT_TWO, [found("cat")] * 2, 1.0),
        (COUNT_TWO, [found("cat")] * 3, 0.0),
        (COUNT_TWO, [found("cat")], 0.0),
        (COUNT_TWO, [], 0.0),
        (wanted("single_object"), [], 1.0),
    ],
)
def test_the_share_that_is_right_counts_numbers_colours_and_positions(
    prompt: dict[str, Any], detections: list[Detection], share: float
) -> None:
    assert judge(prompt, detections).share == pytest.approx(share)


def test_all_of_the_share_means_correct_and_nothing_less_does() -> None:
    rng = np.random.default_rng(0)
    boxes: list[Box] = [(0, 0, 10, 10), (50, 0, 60, 10)]
    verdicts = []
    for prompt in (COUNT_TWO, RED_CAT, CAT_LEFT_OF_DOG, RED_CAT_AND_DOG):
        for _ in range(100):
            names, colors = rng.choice(["cat", "dog"], 3), rng.choice(["red", "blue"], 3)
            detections = [found(n, color=c, box=boxes[rng.integers(2)]) for n, c in zip(names, colors, strict=True)]
            verdicts.append(judge(prompt, detections[: rng.integers(1, 4)]))
    assert all((verdict.share == 1) is verdict.correct and 0 <= verdict.share <= 1 for verdict in verdicts)
    assert 50 < sum(verdict.correct for verdict in verdicts) < 350
