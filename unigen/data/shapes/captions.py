# SPDX-License-Identifier: Apache-2.0
"""Words for scenes: short captions worded like the prompts of the six tags, and long ones that tell everything."""

from itertools import combinations

import numpy as np

from unigen.data.shapes.scene import Scene, SceneObject, relations

PREFIXES = (
    "a photo of",
    "a picture of",
    "an image of",
    "a drawing of",
    "a painting of",
    "a sketch of",
    "an illustration of",
    "a rendering of",
    "a view of",
    "a photo showing",
    "a picture showing",
    "an image showing",
    "a drawing showing",
)
NUMBERS = ("zero", "one", "two", "three", "four")
CELL_NAMES = {(0, 0): "top left", (1, 0): "top right", (0, 1): "bottom left", (1, 1): "bottom right"}

_USUAL_PREFIX_PROB = 0.4
_COLORED_POSITION_PROB = 0.4
_COLORED_COUNT_PROB = 0.3


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return shape + ("es" if shape.endswith("s") else "s")


def short_caption(scene: Scene, rng: np.random.Generator) -> str:
    """One phrase that says of the scene what a prompt of its tag would ask for."""
    prefix = PREFIXES[0] if rng.random() < _USUAL_PREFIX_PROB else str(rng.choice(PREFIXES))
    return f"{prefix} {_phrase(scene, rng)}"


def long_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Several sentences: the count, every object with its colour and place, and how any two of them lie."""
    objects = list(scene.objects)
    rng.shuffle(objects)
    sentences = [_count_sentence(objects)]
    for thing in objects:
        where = f"in the {CELL_NAMES[thing.cell]}"
        sentences.append(f"a {_name(thing)} is {where}." if rng.random() < 0.5 else f"{where} is a {_name(thing)}.")
    if scene.tag != "counting":
        for first, second in combinations(objects, 2):
            words = sorted(relations(first, second))
            sentences.append(f"the {_name(first)} is {' and '.join(words)} the {_name(second)}.")
    return " ".join(sentence.capitalize() for sentence in sentences)


def _phrase(scene: Scene, rng: np.random.Generator) -> str:
    objects = list(scene.objects)
    rng.shuffle(objects)
    first = objects[0]
    if scene.tag == "single_object":
        return f"a {first.shape}"
    if scene.tag == "colors":
        return f"a {_name(first)}"
    if scene.tag == "counting":
        color = f"{first.color} " if rng.random() < _COLORED_COUNT_PROB else ""
        return f"{NUMBERS[len(objects)]} {color}{plural(first.shape)}"
    second = objects[1]
    if scene.tag == "two_object":
        return f"a {first.shape} and a {second.shape}"
    if scene.tag == "color_attr":
        return f"a {_name(first)} and a {_name(second)}"
    relation = str(rng.choice(sorted(relations(first, second))))
    if rng.random() < _COLORED_POSITION_PROB:
        return f"a {_name(first)} {relation} a {_name(second)}"
    return f"a {first.shape} {relation} a {second.shape}"


def _count_sentence(objects: list[SceneObject]) -> str:
    if len(objects) == 1:
        return f"there is one object, a {_name(objects[0])}."
    number = NUMBERS[len(objects)]
    if len({(thing.color, thing.shape) for thing in objects}) == 1:
        return f"there are {number} objects, {number} {objects[0].color} {plural(objects[0].shape)}."
    return f"there are {number} objects, " + " and ".join(f"a {_name(thing)}" for thing in objects) + "."


def _name(thing: SceneObject) -> str:
    return f"{thing.color} {thing.shape}"
