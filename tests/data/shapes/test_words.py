# SPDX-License-Identifier: Apache-2.0
"""Captions, questions and prompts of the world of shapes."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from unigen.data.shapes.captions import PREFIXES, long_caption, short_caption
from unigen.data.shapes.prompts import geneval_prompts, training_prompts
from unigen.data.shapes.questions import ANSWERS, QuestionBook
from unigen.data.shapes.scene import TAGS, WITHHELD_POSITIONS, Scene, SceneObject, is_held_out, sample_scene

LEFT = SceneObject("circle", "red", 0.25, 0.25, 0.3)
RIGHT = SceneObject("square", "blue", 0.75, 0.25, 0.3)


def without_prefix(text: str) -> str:
    return next(text.removeprefix(f"{prefix} ") for prefix in PREFIXES if text.startswith(f"{prefix} "))


def captions(scene: Scene) -> set[str]:
    """Every short caption of a scene without its prefix."""
    rng = np.random.default_rng(0)
    return {without_prefix(short_caption(scene, rng)) for _ in range(300)}


def test_short_captions_say_what_prompts_of_the_same_tag_ask_for() -> None:
    pair = (LEFT, RIGHT)
    assert captions(Scene("single_object", (LEFT,))) == {"a circle"}
    assert captions(Scene("colors", (LEFT,))) == {"a red circle"}
    assert captions(Scene("two_object", pair)) == {"a circle and a square", "a square and a circle"}
    assert captions(Scene("color_attr", pair)) == {
        "a red circle and a blue square",
        "a blue square and a red circle",
    }
    assert captions(Scene("position", pair)) == {
        "a circle left of a square",
        "a square right of a circle",
        "a red circle left of a blue square",
        "a blue square right of a red circle",
    }
    crosses = tuple(SceneObject("cross", "white", x, 0.25, 0.3) for x in (0.25, 0.75))
    assert captions(Scene("counting", crosses)) == {"two crosses", "two white crosses"}


def test_long_captions_tell_every_object_its_place_and_the_relation() -> None:
    text = long_caption(Scene("two_object", (LEFT, RIGHT)), np.random.default_rng(0)).lower()
    for part in ("two objects", "red circle", "blue square", "top left", "top right"):
        assert part in text
    assert "red circle is left of the blue square" in text or "blue square is right of the red circle" in text


@pytest.mark.parametrize("held_out", [False, True])
def test_answers_are_balanced_for_every_kind_and_every_wording(held_out: bool) -> None:
    rng, book = np.random.default_rng(0), QuestionBook()
    by_kind: defaultdict[str, Counter[str]] = defaultdict(Counter)
    by_wording: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for _ in range(600):
        scene = book.sample_scene(rng, held_out)
        asked = book.ask(scene, 3, rng)
        assert asked
        assert is_held_out(scene) is held_out
        for question in asked:
            by_kind[question.kind][question.answer] += 1
            by_wording[question.kind, question.question][question.answer] += 1
    totals = [counts.total() for counts in by_kind.values()]
    assert len(totals) == len(ANSWERS)
    assert max(totals) - min(totals) <= 10
    for kind, counts in by_kind.items():
        assert set(counts) == set(ANSWERS[kind])
        assert max(counts.values()) - min(counts.values()) <= 2
    for (kind, _), counts in by_wording.items():
        assert max(counts.values()) - min(counts[answer] for answer in ANSWERS[kind]) <= 1


def test_answers_are_true_of_the_scene() -> None:
    square, circle = SceneObject("square", "blue", 0.25, 0.25, 0.3), SceneObject("circle", "red", 0.75, 0.25, 0.3)
    truth = {
        "what color is the circle?": "red",
        "what color is the square?": "blue",
        "what shape is the red object?": "circle",
        "what shape is the blue object?": "square",
        "how many circles are there?": "one",
        "how many squares are there?": "one",
        "is there a red circle?": "yes",
        "is there a blue square?": "yes",
        "is there a red square?": "no",
        "is there a blue circle?": "no",
        "is there a green circle?": "no",
        "is the circle right of the square?": "yes",
        "is the square left of the circle?": "yes",
        "is the circle above the square?": "no",
        "is the square below the circle?": "no",
    }
    rng = np.random.default_rng(0)
    scene = Scene("two_object", (square, circle))
    asked = {ask.question: ask.answer for _ in range(300) for ask in QuestionBook().ask(scene, 5, rng)}
    assert truth.items() <= asked.items()


def test_a_withheld_arrangement_is_never_asked_about() -> None:
    rng, book = np.random.default_rng(0), QuestionBook()
    asked = {ask.question for _ in range(1000) for ask in book.ask(book.sample_scene(rng), 5, rng)}
    assert not asked & {f"is the {first} {relation} the {second}?" for first, relation, second in WITHHELD_POSITIONS}


def test_every_tag_has_at_least_fifty_different_prompts_in_genevals_schema() -> None:
    prompts = geneval_prompts()
    assert prompts == geneval_prompts()
    assert len({prompt["prompt"] for prompt in prompts}) == len(prompts)
    counts = Counter(prompt["tag"] for prompt in prompts)
    assert tuple(counts) == TAGS
    assert min(counts.values()) >= 50
    for prompt in prompts:
        assert ("exclude" in prompt) == (prompt["tag"] == "counting")
        assert all(item["class"] in prompt["prompt"] for item in prompt["include"])


def test_half_of_the_compositional_prompts_are_of_withheld_combinations() -> None:
    for tag in TAGS:
        seen = [prompt["seen"] for prompt in geneval_prompts() if prompt["tag"] == tag]
        expected = 0.5 if tag in ("two_object", "position", "color_attr") else 1.0
        assert sum(seen) / len(seen) == expected


def test_prompts_marked_unseen_are_never_a_training_caption_and_seen_ones_are() -> None:
    rng = np.random.default_rng(0)
    tags = ("two_object", "position")
    said = {without_prefix(short_caption(sample_scene(tag, rng), rng)) for tag in tags for _ in range(1500)}
    for prompt in geneval_prompts():
        if prompt["tag"] in tags:
            assert (without_prefix(prompt["prompt"]) in said) is prompt["seen"]


def test_training_prompts_are_never_the_benchmarks_and_never_of_a_withheld_combination() -> None:
    prompts = training_prompts(np.random.default_rng(0))
    evaluated = {" ".join(prompt["prompt"].lower().split()) for prompt in geneval_prompts()}
    withheld = {_wanted(prompt) for prompt in geneval_prompts() if not prompt["seen"]}
    assert not {" ".join(prompt["prompt"].lower().split()) for prompt in prompts} & evaluated
    assert all(prompt["seen"] and _wanted(prompt) not in withheld for prompt in prompts)
    words = [prompt["prompt"] for prompt in prompts]
    assert not any("circle and a triangle" in one or "triangle and a circle" in one for one in words)


def test_training_prompts_are_many_different_ones_of_every_tag_with_ids_and_tags_in_turn() -> None:
    prompts = training_prompts(np.random.default_rng(0))
    assert len({prompt["prompt"] for prompt in prompts}) == len({prompt["id"] for prompt in prompts}) == len(prompts)
    assert {tag: sum(prompt["tag"] == tag for prompt in prompts) for tag in TAGS} == {
        "single_object": 44,
        "two_object": 154,
        "counting": 164,
        "colors": 200,
        "position": 200,
        "color_attr": 200,
    }
    assert [prompt["tag"] for prompt in prompts[:12]] == [*TAGS, *TAGS]
    assert prompts != training_prompts(np.random.default_rng(1))


def _wanted(prompt: dict[str, Any]) -> str:
    """What a prompt asks for, whatever the order of its words."""
    items = {(item["class"], item.get("color"), item["count"]) for item in prompt["include"]}
    place = {(item["class"], *item["position"]) for item in prompt["include"] if "position" in item}
    return repr((prompt["tag"], sorted(map(repr, items)), sorted(map(repr, place))))
