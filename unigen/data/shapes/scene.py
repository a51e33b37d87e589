# SPDX-License-Identifier: Apache-2.0
"""The world of shapes: what a scene is, which combinations are withheld from training, and how scenes are drawn by lot.

A scene has one to four objects, each in its own quadrant. Lengths are fractions of the image's side, the origin is top left.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

SHAPES = ("circle", "square", "triangle", "cross")
COLORS = {
    "red": (235, 40, 40),
    "green": (40, 185, 60),
    "blue": (40, 90, 250),
    "yellow": (255, 220, 40),
    "purple": (200, 50, 230),
    "white": (245, 245, 245),
}
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CELLS = tuple((column, row) for row in (0, 1) for column in (0, 1))

# Every object has the same size and stands in the middle of its quadrant: 4 x 4 codes then say all there is to say.
OBJECT_SIZE = 0.375
_HELD_OUT_SHARE = 16
_COLOR_NAMES = tuple(COLORS)


@dataclass(frozen=True)
class SceneObject:
    """One object; `x`, `y` is the centre and `size` the full extent."""

    shape: str
    color: str
    x: float
    y: float
    size: float

    @property
    def cell(self) -> tuple[int, int]:
        """The quadrant as (column, row)."""
        return int(self.x > 0.5), int(self.y > 0.5)


@dataclass(frozen=True)
class Scene:
    """Objects in reading order of their quadrants, made for the sake of one of TAGS."""

    tag: str
    objects: tuple[SceneObject, ...]


def relations(first: SceneObject, second: SceneObject) -> set[str]:
    """Which of RELATIONS hold for `first` seen from `second`: one in a row or column, two on a diagonal."""
    (column, row), (other_column, other_row) = first.cell, second.cell
    holds = (column < other_column, column > other_column, row < other_row, row > other_row)
    return {relation for relation, is_true in zip(RELATIONS, holds, strict=True) if is_true}


def _withheld_positions() -> frozenset[tuple[str, str, str]]:
    """One of the four arrangements of every trained shape pair, in turn, with the mirrored wording of the same fact."""
    triples = set()
    trained = [pair for pair in combinations(SHAPES, 2) if frozenset(pair) not in WITHHELD_SHAPE_PAIRS]
    for index, (first, second) in enumerate(trained):
        relation = RELATIONS[index % len(RELATIONS)]
        triples |= {(first, relation, second), (second, OPPOSITE[relation], first)}
    return frozenset(triples)


def color_attribute_pairs() -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Every unordered pair of (colour, shape) in which both the colours and the shapes of a trained pair differ."""
    return [
        ((first_color, first), (second_color, second))
        for first, second in combinations(SHAPES, 2)
        if frozenset((first, second)) not in WITHHELD_SHAPE_PAIRS
        for first_color, second_color in permutations(COLORS, 2)
    ]


def _withheld_color_attributes() -> frozenset[frozenset[tuple[str, str]]]:
    """A fifth of `color_attribute_pairs`, spread by a checksum of their names so that no seed and no version moves it."""
    pairs = sorted(color_attribute_pairs(), key=lambda pair: zlib.crc32(repr(pair).encode()))
    return frozenset(frozenset(pair) for pair in pairs[: len(pairs) // 5])


WITHHELD_SHAPE_PAIRS = frozenset({frozenset({"circle", "triangle"})})
WITHHELD_POSITIONS = _withheld_positions()
WITHHELD_COLOR_ATTRIBUTES = _withheld_color_attributes()


def is_withheld(scene: Scene) -> bool:
    """Whether any two objects of the scene realise a combination that training must never show."""
    for first, second in combinations(scene.objects, 2):
        if frozenset({first.shape, second.shape}) in WITHHELD_SHAPE_PAIRS:
            return True
        if any((first.shape, relation, second.shape) in WITHHELD_POSITIONS for relation in relations(first, second)):
            return True
        if frozenset({(first.color, first.shape), (second.color, second.shape)}) in WITHHELD_COLOR_ATTRIBUTES:
            return True
    return False


def is_held_out(scene: Scene) -> bool:
    """Whether the scene belongs to the held-out share: a property of its objects alone, so that no seed can leak it."""
    places = sorted((thing.shape, thing.color, thing.cell) for thing in scene.objects)
    return zlib.crc32(repr(places).encode()) % _HELD_OUT_SHARE == 0


def sample_scene(tag: str, rng: np.random.Generator, held_out: bool = False) -> Scene:
    """Draw a scene such as training may show (or, `held_out`, such as it never shows by its places) for one of TAGS."""
    while True:
        scene = sample_any_scene(tag, rng)
        if not is_withheld(scene) and is_held_out(scene) == held_out:
            return scene


def sample_any_scene(tag: str, rng: np.random.Generator) -> Scene:
    """Draw a scene for one of TAGS, withheld combinations included."""
    shapes, colors, num_objects = _sample_kinds(tag, rng)
    cells = list(CELLS)
    rng.shuffle(cells)
    cells = cells[:num_objects]
    if tag == "position":  # one relation alone must hold: move the second object off the diagonal
        column, row = cells[0]
        cells[1] = (1 - column, row) if rng.random() < 0.5 else (column, 1 - row)
    things = [_place(*kind) for kind in zip(shapes, colors, cells, strict=True)]
    return Scene(tag, tuple(sorted(things, key=lambda thing: thing.cell[::-1])))


def _sample_kinds(tag: str, rng: np.random.Generator) -> tuple[list[str], list[str], int]:
    """The shapes and colours of a scene's objects and how many there are."""
    if tag in ("single_object", "colors"):
        return [_pick(SHAPES, rng)], [_pick(_COLOR_NAMES, rng)], 1
    if tag == "counting":
        count = int(rng.integers(2, 5))
        return [_pick(SHAPES, rng)] * count, [_pick(_COLOR_NAMES, rng)] * count, count
    shape, color = _pick(SHAPES, rng), _pick(_COLOR_NAMES, rng)
    other_shapes = [name for name in SHAPES if name != shape]
    other_colors = [name for name in _COLOR_NAMES if name != color or tag != "color_attr"]
    return [shape, _pick(other_shapes, rng)], [color, _pick(other_colors, rng)], 2


def _pick(names: Sequence[str], rng: np.random.Generator) -> str:
    return names[int(rng.integers(len(names)))]


def _place(shape: str, color: str, cell: tuple[int, int]) -> SceneObject:
    """Put an object into the middle of its quadrant."""
    column, row = cell
    return SceneObject(shape, color, 0.25 + 0.5 * column, 0.25 + 0.5 * row, OBJECT_SIZE)
