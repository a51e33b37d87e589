# SPDX-License-Identifier: Apache-2.0
"""Prompts of the world of shapes in GenEval's schema, the same six tags, each marked as seen in training or withheld."""

from collections.abc import Iterable
from itertools import permutations
from typing import Any

from unigen.data.shapes.captions import NUMBERS, PREFIXES, plural
from unigen.data.shapes.scene import (
    COLORS,
    RELATIONS,
    SHAPES,
    WITHHELD_COLOR_ATTRIBUTES,
    WITHHELD_POSITIONS,
    WITHHELD_SHAPE_PAIRS,
    color_attribute_pairs,
)

NUM_PROMPTS_PER_TAG = 52


def geneval_prompts() -> list[dict[str, Any]]:
    """NUM_PROMPTS_PER_TAG prompts for each tag, in the order of GenEval; always the same.

    Each has `tag`, `include`, `prompt`, `seen` and for counting `exclude`. Half of `two_object`, `position` and
    `color_attr` are of combinations that no training image or caption shows.
    """
    single = [_prompt("single_object", f"a {shape}", [_item(shape)]) for shape in SHAPES]
    colors = [_prompt("colors", f"a {color} {shape}", [_item(shape, color)]) for color in COLORS for shape in SHAPES]
    counting = [_counting(shape, count) for count in (2, 3, 4) for shape in SHAPES]
    return [
        *_worded(single, NUM_PROMPTS_PER_TAG),
        *_half_seen(_two_object()),
        *_worded(counting, NUM_PROMPTS_PER_TAG),
        *_worded(colors, NUM_PROMPTS_PER_TAG),
        *_half_seen(_position()),
        *_half_seen(_color_attribute()),
    ]


def _two_object() -> list[dict[str, Any]]:
    return [
        _prompt(
            "two_object",
            f"a {first} and a {second}",
            [_item(first), _item(second)],
            frozenset({first, second}) not in WITHHELD_SHAPE_PAIRS,
        )
        for first, second in permutations(SHAPES, 2)
    ]


def _position() -> list[dict[str, Any]]:
    """The subject of the sentence is the second item, placed in relation to the first, as in GenEval."""
    return [
        _prompt(
            "position",
            f"a {subject} {relation} a {reference}",
            [_item(reference), {**_item(subject), "position": [relation, 0]}],
            (subject, relation, reference) not in WITHHELD_POSITIONS,
        )
        for subject, reference in permutations(SHAPES, 2)
        if frozenset({subject, reference}) not in WITHHELD_SHAPE_PAIRS
        for relation in RELATIONS
    ]


def _color_attribute() -> list[dict[str, Any]]:
    return [
        _prompt(
            "color_attr",
            " and ".join(f"a {color} {shape}" for color, shape in pair),
            [_item(shape, color) for color, shape in pair],
            frozenset(pair) not in WITHHELD_COLOR_ATTRIBUTES,
        )
        for pair in color_attribute_pairs()
    ]


def _counting(shape: str, count: int) -> dict[str, Any]:
    prompt = _prompt("counting", f"{NUMBERS[count]} {plural(shape)}", [{"class": shape, "count": count}])
    return {**prompt, "exclude": [{"class": shape, "count": count + 1}]}


def _prompt(tag: str, phrase: str, include: list[dict[str, Any]], seen: bool = True) -> dict[str, Any]:
    return {"tag": tag, "include": include, "prompt": phrase, "seen": seen}


def _item(shape: str, color: str | None = None) -> dict[str, Any]:
    return {"class": shape, "count": 1, **({"color": color} if color else {})}


def _half_seen(prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    halves = ([prompt for prompt in prompts if prompt["seen"] is seen] for seen in (True, False))
    return [prompt for half in halves for prompt in _worded(half, NUM_PROMPTS_PER_TAG // 2)]


def _worded(phrases: list[dict[str, Any]], count: int) -> Iterable[dict[str, Any]]:
    """`count` different prompts: all phrases with the first prefix, then with the next; fewer ones are spread evenly."""
    if len(phrases) > count:
        phrases = [phrases[index * len(phrases) // count] for index in range(count)]
    for index in range(count):
        prefix, phrase = PREFIXES[index // len(phrases)], phrases[index % len(phrases)]
        yield {**phrase, "prompt": f"{prefix} {phrase['prompt']}"}
