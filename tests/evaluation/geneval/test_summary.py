# SPDX-License-Identifier: Apache-2.0
"""GenEval's scores out of verdicts."""

import pytest

from unigen.evaluation.geneval.summary import Graded, present_tags, summarise


def test_a_tag_counts_images_and_the_overall_score_weighs_tags_alike() -> None:
    graded = [
        *(Graded(0, "colors", correct) for correct in (True, False, False, False)),
        *(Graded(1, "colors", correct) for correct in (False, False, False, False)),
        *(Graded(2, "single_object", correct) for correct in (True, True, True, False)),
    ]
    scores = summarise(graded)
    assert scores["tags"] == {"single_object": 0.75, "colors": 0.125}
    assert list(scores["tags"]) == ["single_object", "colors"]
    assert scores["overall"] == pytest.approx((0.75 + 0.125) / 2)
    assert scores["correct_images"] == pytest.approx(4 / 12)
    assert scores["correct_prompts"] == pytest.approx(2 / 3)  # any correct image
    assert (scores["num_prompts"], scores["num_images"]) == (3, 12)
    assert scores["tag_intervals"]["single_object"] == [0.75, 0.75]  # one prompt says nothing of others
    assert scores["tag_intervals"]["colors"][0] < 0.125 < scores["tag_intervals"]["colors"][1]
    assert scores["interval"][0] < scores["overall"] < scores["interval"][1]


def test_tags_stand_in_the_official_order_and_others_after_them() -> None:
    tags = ["shadow", "color_attr", "position", "colors", "counting", "two_object", "single_object"]
    assert present_tags([Graded(0, tag, True) for tag in tags]) == [*tags[:0:-1], "shadow"]
