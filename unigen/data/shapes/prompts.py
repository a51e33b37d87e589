# SPDX-License-Identifier: Apache-2.0
"""Prompts of the world of shapes in GenEval's schema, the same six tags, each marked as seen in training or withheld.

The benchmark's prompts are always the same; those to train on are worded like captions and are none of the benchmark's.
"""

from collections.abc import Iterable
from itertools import permutations
from typing import Any

import numpy as np

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
MOST_TRAINING_PROMPTS_PER_TAG = 200
TRAINING_PREFIXES = (
    "an illustration showing",
    "a painting showing",
    "a rendering showing",
    "a sketch showing",
    "a view showing",
)
"""Of known words, but neither in captions nor in the benchmark, which has every other wording of one uncoloured object."""


def geneval_prompts() -> list[dict[str, Any]]:
    """NUM_PROMPTS_PER_TAG prompts for each tag, in the order of GenEval; always the same.

    Each has `tag`, `include`, `prompt`, `seen` and for counting `exclude`. Half of `two_object`, `position` and
    `color_attr` are of combinations that no training image or caption shows.
    """
    return [
        *_worded(_single(), NUM_PROMPTS_PER_TAG),
        *_half_seen(_two_object()),
        *_worded(_counted(), NUM_PROMPTS_PER_TAG),
        *_worded(_colors(), NUM_PROMPTS_PER_TAG),
        *_half_seen(_position()),
        *_half_seen(_color_attribute()),
    ]


def training_prompts(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Prompts for making training data: combinations that training shows, in wordings that the benchmark does not use.

    Each has an `id` besides. Up to MOST_TRAINING_PROMPTS_PER_TAG of a tag, drawn by lot; the tags take turns for as long
    as they have any, so that the first prompts are of every tag.
    """
    evaluated = {prompt["prompt"] for prompt in geneval_prompts()}
    by_tag: dict[str, list[dict[str, Any]]] = {}
    for prompt in _caption_like():
        if prompt["seen"] and prompt["prompt"] not in evaluated:
            by_tag.setdefault(prompt["tag"], []).append(prompt)
    drawn = {
        tag: [prompts[index] for index in rng.permutation(len(prompts))[:MOST_TRAINING_PROMPTS_PER_TAG]]
        for tag, prompts in by_tag.items()
    }
    turns = [
        prompts[turn]
        for turn in range(max(map(len, drawn.values())))
        for prompts in drawn.values()
        if turn < len(prompts)
    ]
    return [{"id": f"train-{index:05d}", **prompt} for index, prompt in enumerate(turns)]


def _caption_like() -> Iterable[dict[str, Any]]:
    """Every wording that a caption may have, and a few more, of what a prompt of each tag asks for."""
    for color in COLORS:
        for shape in SHAPES:
            yield _prompt("single_object", f"There is one object, a {color} {shape}.", [_item(shape, color)])
    phrases = [
        *_single(),
        *_two_object(),
        *_counted(),
        *_colors(),
        *_position(),
        *_color_attribute(),
        *map(_turned, _color_attribute()),
    ]
    for phrase in phrases:
        for prefix in (*PREFIXES, *TRAINING_PREFIXES):
            yield {**phrase, "prompt": f"{prefix} {phrase['prompt']}"}


def _single() -> list[dict[str, Any]]:
    return [_prompt("single_object", f"a {shape}", [_item(shape)]) for shape in SHAPES]


def _colors() -> list[dict[str, Any]]:
    return [_prompt("colors", f"a {color} {shape}", [_item(shape, color)]) for color in COLORS for shape in SHAPES]


def _counted() -> list[dict[str, Any]]:
    return [_counting(shape, count) for count in (2, 3, 4) for shape in SHAPES]


def _turned(prompt: dict[str, Any]) -> dict[str, Any]:
    """The same two objects, named the other way round."""
    return {
        **prompt,
        "prompt": " and ".join(reversed(prompt["prompt"].split(" and "))),
        "include": prompt["include"][::-1],
    }


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
