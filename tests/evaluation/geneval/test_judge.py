# SPDX-License-Identifier: Apache-2.0
"""One image judged: which objects are asked for their colour, what the verdict rests on, and what a variant is called."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.geneval.judges import ToldColors, ToldDetector, instance
from unigen.config.evaluation import GenevalConfig
from unigen.evaluation.geneval.detector import DetectorFile
from unigen.evaluation.geneval.judge import OFFICIAL_PROMPTS, ImageJudge, JudgeFiles, Judgement, thresholds_of
from unigen.evaluation.geneval.postprocess import Instance
from unigen.rewards.geneval_rules import Thresholds

IMAGE = Image.new("RGB", (64, 64))
RED_CAR = {"tag": "colors", "include": [{"class": "car", "count": 1, "color": "red"}], "prompt": "a photo of a red car"}


def judge(
    entry: dict[str, Any], *found: Instance, colors: tuple[str, ...] = (), **settings: Any
) -> tuple[Judgement, ToldColors]:
    told = ToldColors(*colors)
    judging: Any = ImageJudge(ToldDetector(*found), told, thresholds_of(GenevalConfig(**settings)))  # type: ignore[arg-type]
    return judging.judge(entry, IMAGE), told


def test_only_the_best_of_a_class_is_asked_for_its_colour() -> None:
    cars = [instance("car", (0, 0, 9, 9), score) for score in (0.5, 0.8, 0.31)]
    found, told = judge(RED_CAR, *cars, colors=("red",))
    assert found.verdict.correct
    assert told.asked == [("car", 0.8)]
    assert [one.color for one in found.objects["car"]] == ["red", None, None]
    assert found.details == {"car": [[0, 0, 9, 9, 0.8], [0, 0, 9, 9, 0.5], [0, 0, 9, 9, 0.31]]}


def test_another_colour_is_wrong_and_said() -> None:
    found, _ = judge(RED_CAR, instance("car", (0, 0, 9, 9), 0.8), colors=("blue",))
    assert not found.verdict.correct
    assert found.verdict.reason == "expected red car>=1, found blue"


def test_no_colour_is_asked_where_there_are_too_few_objects_or_no_colour_is_wanted() -> None:
    pair = {"tag": "colors", "include": [{"class": "car", "count": 2, "color": "red"}], "prompt": ""}
    found, told = judge(pair, instance("car", (0, 0, 9, 9), 0.8))
    assert (found.verdict.correct, told.asked) == (False, [])
    plain = {"tag": "single_object", "include": [{"class": "car", "count": 1}], "prompt": ""}
    assert judge(plain, instance("car", (0, 0, 9, 9), 0.8))[1].asked == []


def test_two_wanted_colours_are_asked_of_the_best_of_each_class() -> None:
    both = [{"class": "car", "count": 1, "color": "red"}, {"class": "cup", "count": 1, "color": "white"}]
    entry = {"tag": "color_attr", "include": both, "prompt": ""}
    objects = [
        instance("cup", (0, 0, 9, 9), 0.4),
        instance("car", (9, 9, 20, 20), 0.8),
        instance("cup", (0, 0, 5, 5), 0.6),
    ]
    found, told = judge(entry, *objects, colors=("red", "white"))
    assert found.verdict.correct
    assert told.asked == [("car", 0.8), ("cup", 0.6)]


def test_counting_has_its_own_threshold_for_every_class() -> None:
    entry = {
        "tag": "counting",
        "include": [{"class": "cup", "count": 2}],
        "exclude": [{"class": "cup", "count": 3}],
        "prompt": "",
    }
    cups = [instance("cup", (index, 0, index + 9, 9), score) for index, score in enumerate((0.95, 0.91, 0.9))]
    found, _ = judge(entry, *cups)
    assert found.verdict.correct
    assert len(found.details["cup"]) == 2
    assert judge(entry, *cups, counting_score=0.85)[0].verdict.reason == "expected cup<3, found 3"


def test_every_threshold_can_be_given_otherwise() -> None:
    entry = {"tag": "single_object", "include": [{"class": "cup", "count": 2}], "prompt": ""}
    near = [instance("cup", (0, 0, 20, 20), 0.9), instance("cup", (1, 0, 21, 20), 0.8)]
    assert judge(entry, *near)[0].verdict.correct
    assert not judge(entry, *near, max_overlap=0.5)[0].verdict.correct
    assert judge(entry, *near, max_overlap=0.95)[0].verdict.correct
    assert not judge(entry, *near, max_objects_per_class=1)[0].verdict.correct
    assert not judge(entry, *near, score=0.85)[0].verdict.correct
    side = [{"class": "cup", "count": 1}, {"class": "car", "count": 1, "position": ["right of", 0]}]
    entry = {"tag": "position", "include": side, "prompt": ""}
    beside = [instance("cup", (0, 0, 20, 20), 0.9), instance("car", (15, 0, 35, 20), 0.9)]
    assert judge(entry, *beside)[0].verdict.correct
    assert not judge(entry, *beside, position=0.3)[0].verdict.correct


def test_the_settings_are_the_official_ones_unless_given() -> None:
    assert thresholds_of(GenevalConfig()) == Thresholds()
    usual = GenevalConfig()
    assert (usual.score, usual.counting_score, usual.max_objects_per_class) == (0.3, 0.9, 16)
    assert (usual.max_overlap, usual.position) == (1.0, 0.1)
    assert (usual.background, usual.crop) == ("#999", True)


@pytest.mark.parametrize(
    ("settings", "prompts", "variant"),
    [
        ({}, OFFICIAL_PROMPTS, "mask2former-openmmlab-20220504"),
        ({}, "ab" * 32, "mask2former-openmmlab-20220504+prompts-abababab"),
        ({"score": 0.25, "crop": False}, OFFICIAL_PROMPTS, "mask2former-openmmlab-20220504+score=0.25+crop=False"),
        ({"clip": "other"}, OFFICIAL_PROMPTS, "mask2former-openmmlab-20220504+clip-cdcdcdcd"),
        ({"golden": "g.jsonl", "detector": "x.pth"}, OFFICIAL_PROMPTS, "mask2former-openmmlab-20220504"),
    ],
)
def test_whatever_is_not_official_is_in_the_name(settings: dict[str, Any], prompts: str, variant: str) -> None:
    detector = DetectorFile(Path(__file__), "743b7d99" + "0" * 56)
    files = JudgeFiles(GenevalConfig(**settings), detector, Path("clip"), "cd" * 32)
    assert files.variant(prompts) == variant
