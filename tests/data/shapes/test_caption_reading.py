# SPDX-License-Identifier: Apache-2.0
"""What a caption claims: all true captions are right, and every kind of mistake costs what it should."""

import numpy as np
import pytest

from unigen.data.shapes.caption_reading import CaptionAccuracy, ClaimedObject, caption_accuracy, claimed_objects
from unigen.data.shapes.captions import long_caption, short_caption
from unigen.data.shapes.scene import TAGS, Scene, sample_any_scene

LEFT, RIGHT, BELOW = (0, 0), (1, 0), (1, 1)
RED, BLUE = ClaimedObject("circle", "red", LEFT), ClaimedObject("square", "blue", BELOW)
TWO = (RED, BLUE)
PERFECT = CaptionAccuracy(1.0, 1.0, 1.0)


def scenes(count: int) -> list[tuple[Scene, np.random.Generator]]:
    rng = np.random.default_rng(3)
    return [(sample_any_scene(TAGS[number % len(TAGS)], rng), rng) for number in range(count)]


def test_the_long_captions_of_the_world_say_exactly_what_is_there() -> None:
    for scene, rng in scenes(300):
        caption = long_caption(scene, rng)
        true = {(thing.shape, thing.color, thing.cell) for thing in scene.objects}
        claims = claimed_objects(caption)
        assert {(one.shape, one.color, one.cell) for one in claims} == true, caption
        assert len(claims) == len(scene.objects), caption
        assert caption_accuracy(caption, scene.objects) == PERFECT


def test_the_short_captions_of_the_world_are_right_in_all_that_they_say() -> None:
    for scene, rng in scenes(300):
        caption = short_caption(scene, rng)
        assert caption_accuracy(caption, scene.objects) == PERFECT, caption


def test_a_caption_of_another_scene_is_not_right() -> None:
    drawn = scenes(200)
    others = [caption_accuracy(long_caption(scene, rng), drawn[0][0].objects).f1 for scene, rng in drawn[1:]]
    assert np.mean(others) < 0.2


@pytest.mark.parametrize(
    ("caption", "precision", "recall"),
    [
        ("There are two objects, a red circle and a blue square.", 1, 1),
        ("There are two objects, a green circle and a blue square.", 1 / 2, 1 / 2),
        ("There is one object, a red circle.", 1, 1 / 2),
        ("There are two objects, a red circle and a blue square. A white cross is in the top right.", 2 / 3, 1),
        ("A red circle is in the top right. A blue square is in the bottom right.", 1 / 2, 1 / 2),
        ("Two red circles and a blue square.", 2 / 3, 1),
        ("A red circle is in the top left. A red circle is in the bottom left. A blue square.", 2 / 3, 1),
        ("A circle and a square.", 1, 1),
        ("", 0, 0),
        ("A nice picture, without any doubt.", 0, 0),
    ],
)
def test_mistakes_cost_precision_or_recall(caption: str, precision: float, recall: float) -> None:
    found = caption_accuracy(caption, TWO)
    assert (found.precision, found.recall) == (pytest.approx(precision), pytest.approx(recall))
    both = precision + recall
    assert found.f1 == pytest.approx(2 * precision * recall / both if both else 0)


@pytest.mark.parametrize(
    ("caption", "claims"),
    [
        ("2 red circles", [ClaimedObject("circle", "red")] * 2),
        ("No circles, 1 cross", [ClaimedObject("cross")]),
        ("Crosses!", [ClaimedObject("cross")] * 2),
        ("A big, filled RED circle sits in the upper-left corner", [RED]),
        ("There is a circle; the circle is red.", [ClaimedObject("circle", "red")]),
        ("the red circle is left of the blue square. the blue square is right of the red circle", "unplaced"),
        ("In the top left is a red circle and in the lower right a blue square", [RED, BLUE]),
        ("a red circle in the top left and a blue square in the bottom right", [RED, BLUE]),
        (
            "three green squares in the top left, the top right and the bottom right",
            [ClaimedObject("square", "green", cell) for cell in (LEFT, RIGHT, BELOW)],
        ),
        ("a red circle, a circle and another circle", [ClaimedObject("circle", "red"), ClaimedObject("circle")]),
    ],
)
def test_free_words_are_read_too(caption: str, claims: list[ClaimedObject] | str) -> None:
    unplaced = [ClaimedObject("circle", "red"), ClaimedObject("square", "blue")]
    assert claimed_objects(caption) == (unplaced if claims == "unplaced" else claims)


def test_a_scene_without_objects_has_no_true_caption() -> None:
    assert caption_accuracy("a red circle", ()) == CaptionAccuracy(0.0, 0.0, 0.0)
