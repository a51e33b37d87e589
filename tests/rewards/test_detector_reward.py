# SPDX-License-Identifier: Apache-2.0
"""The detector's reward over drawn shapes: all, a part, or nothing of a prompt."""

import pytest

from unigen.data.shapes.render import render
from unigen.data.shapes.scene import OBJECT_SIZE, Scene, SceneObject
from unigen.errors import RewardError
from unigen.rewards import Judged
from unigen.rewards.detector_reward import DetectorReward

RED_CIRCLE = SceneObject("circle", "red", 0.25, 0.25, OBJECT_SIZE)
BLUE_SQUARE = SceneObject("square", "blue", 0.75, 0.75, OBJECT_SIZE)
ENTRY = {
    "tag": "color_attr",
    "include": [
        {"class": "circle", "count": 1, "color": "red"},
        {"class": "square", "count": 1, "color": "white"},
    ],
}


def judged(*things: SceneObject) -> Judged:
    return Judged("a", render(Scene("color_attr", things), 64), entry=ENTRY)


def test_the_share_of_what_is_right_or_strictly_all_or_nothing() -> None:
    white_square = SceneObject("square", "white", 0.75, 0.75, OBJECT_SIZE)
    items = [judged(RED_CIRCLE, white_square), judged(RED_CIRCLE, BLUE_SQUARE), judged(RED_CIRCLE), judged(BLUE_SQUARE)]
    assert DetectorReward().score(items) == [1.0, 0.75, 0.5, 0.25]
    assert DetectorReward(is_strict=True).score(items) == [1.0, 0.0, 0.0, 0.0]


def test_without_an_entry_there_is_nothing_to_hold_an_image_against() -> None:
    with pytest.raises(RewardError, match="needs entries of GenEval's schema"):
        DetectorReward().score([Judged("a", judged(RED_CIRCLE).image)])
