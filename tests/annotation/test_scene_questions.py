# SPDX-License-Identifier: Apache-2.0
"""Questions by rule say of an image, taken together, exactly what GenEval's decision says."""

import numpy as np
import pytest

from unigen.annotation.scene_questions import scene_questions
from unigen.data.shapes.detector import detect
from unigen.data.shapes.prompts import geneval_prompts, training_prompts
from unigen.data.shapes.render import render
from unigen.data.shapes.scene import sample_any_scene
from unigen.errors import DataError
from unigen.evaluation.prompt_scenes import scene_for
from unigen.rewards.geneval_rules import judge
from unigen.rewards.shapes import THRESHOLDS, judge_image


def asked(entry: dict[str, object]) -> list[str]:
    return [question for question, _ in scene_questions(entry)]


def test_facts_are_asked_one_by_one_existence_first() -> None:
    circle, square = {"class": "circle", "count": 1}, {"class": "square", "count": 1}
    assert asked({"include": [circle]}) == ["is there a circle?"]
    assert asked({"include": [{**circle, "color": "red"}]}) == ["is there a circle?", "is there a red circle?"]
    assert asked({"include": [circle, {**square, "position": ["left of", 0]}]}) == [
        "is there a circle?",
        "is there a square?",
        "is the square left of the circle?",
    ]
    three = {"class": "cross", "count": 3}
    assert asked({"include": [three]}) == ["is there a cross?", "are there at least three crosses?"]
    assert asked({"include": [three], "exclude": [{"class": "cross", "count": 4}]}) == [
        "is there a cross?",
        "are there exactly three crosses?",
    ]
    assert asked({"include": [{"class": "apple", "count": 12, "color": "red"}]}) == [
        "is there an apple?",
        "are there at least 12 apples?",
        "are there 12 red apples?",
    ]
    assert asked({"include": [circle], "exclude": [{"class": "square", "count": 2}]}) == [
        "is there a circle?",
        "are there fewer than two squares?",
    ]


def test_all_answers_are_yes_exactly_where_the_image_is_correct() -> None:
    rng = np.random.default_rng(0)
    verdicts = set()
    for entry in [*geneval_prompts()[::4], *training_prompts(rng)[::12]]:
        for scene in (scene_for(entry, rng), sample_any_scene(entry["tag"], rng)):
            image = render(scene, 32)
            found = detect(image)
            answers = [judge(check, found, THRESHOLDS).correct for _, check in scene_questions(entry)]
            assert all(answers) == judge_image(entry, image).correct
            verdicts.add((entry["tag"], all(answers)))
    assert len(verdicts) == 12, "both verdicts of every tag were seen"


@pytest.mark.parametrize(
    "entry",
    [
        {"prompt": "a dog"},
        {"prompt": "a dog", "include": []},
        {"prompt": "a dog", "include": [{"class": "dog"}]},
        {"prompt": "a dog", "include": [{"class": "dog", "count": 1, "position": ["left of", 3]}]},
    ],
)
def test_an_entry_without_a_usable_scene_is_refused_by_its_prompt(entry: dict[str, object]) -> None:
    with pytest.raises(DataError, match="a dog"):
        scene_questions(entry)
