# SPDX-License-Identifier: Apache-2.0
"""Scenes: what training shows and what it never shows."""

from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest

from unigen.data.shapes.captions import long_caption, short_caption
from unigen.data.shapes.scene import (
    COLORS,
    RELATIONS,
    SHAPES,
    TAGS,
    WITHHELD_COLOR_ATTRIBUTES,
    WITHHELD_POSITIONS,
    WITHHELD_SHAPE_PAIRS,
    color_attribute_pairs,
    is_held_out,
    relations,
    sample_scene,
)


def scenes(tag: str, count: int = 300) -> list:
    rng = np.random.default_rng(1)
    return [sample_scene(tag, rng) for _ in range(count)]


@pytest.mark.parametrize("tag", TAGS)
def test_training_scenes_never_realise_a_withheld_combination(tag: str) -> None:
    for scene in scenes(tag):
        for first, second in permutations(scene.objects, 2):
            assert {first.shape, second.shape} not in WITHHELD_SHAPE_PAIRS
            for relation in relations(first, second):
                assert (first.shape, relation, second.shape) not in WITHHELD_POSITIONS
            assert {(first.color, first.shape), (second.color, second.shape)} not in WITHHELD_COLOR_ATTRIBUTES


def test_training_captions_never_word_a_withheld_combination() -> None:
    rng = np.random.default_rng(2)
    triples = {f"{first} {relation} a {second}" for first, relation, second in WITHHELD_POSITIONS}
    for _ in range(500):
        scene = sample_scene("position", rng)
        words = [word for word in short_caption(scene, rng).split() if word not in COLORS]
        assert not any(triple in " ".join(words) for triple in triples)
        assert not {"circle", "triangle"} <= set(long_caption(scene, rng).lower().replace(".", "").split())


def test_withheld_shares_are_as_announced_and_every_part_is_still_seen_elsewhere() -> None:
    assert len(WITHHELD_SHAPE_PAIRS) == 1
    num_trained_triples = (len(SHAPES) * (len(SHAPES) - 1) - 2) * len(RELATIONS)
    assert len(WITHHELD_POSITIONS) / num_trained_triples == 0.25
    assert len(WITHHELD_COLOR_ATTRIBUTES) / len(color_attribute_pairs()) == 0.2
    assert {relation for _, relation, _ in WITHHELD_POSITIONS} == set(RELATIONS)
    seen = [pair for pair in color_attribute_pairs() if frozenset(pair) not in WITHHELD_COLOR_ATTRIBUTES]
    assert len({part for pair in seen for part in pair}) == len(COLORS) * len(SHAPES)


def test_a_withheld_position_is_withheld_in_either_wording() -> None:
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for first, relation, second in WITHHELD_POSITIONS:
        assert (second, opposite[relation], first) in WITHHELD_POSITIONS


@pytest.mark.parametrize("tag", TAGS)
def test_every_object_stays_in_its_own_quadrant(tag: str) -> None:
    for scene in scenes(tag):
        assert 1 <= len(scene.objects) <= 4
        assert len({thing.cell for thing in scene.objects}) == len(scene.objects)
        for thing in scene.objects:
            for place, middle in zip(thing.cell, (thing.x, thing.y), strict=True):
                assert place / 2 < middle - thing.size / 2
                assert middle + thing.size / 2 < (place + 1) / 2


def test_position_scenes_hold_one_relation_and_color_attribute_scenes_two_colours() -> None:
    assert all(len(relations(*scene.objects)) == 1 for scene in scenes("position"))
    assert all(len({thing.color for thing in scene.objects}) == 2 for scene in scenes("color_attr"))


def test_counting_scenes_show_two_to_four_of_every_shape() -> None:
    seen = Counter((scene.objects[0].shape, len(scene.objects)) for scene in scenes("counting", 600))
    assert set(seen) == {(shape, count) for shape in SHAPES for count in (2, 3, 4)}


def test_held_out_scenes_and_training_scenes_are_disjoint() -> None:
    rng = np.random.default_rng(3)
    assert all(is_held_out(sample_scene(tag, rng, held_out=True)) for tag in TAGS for _ in range(5))
    assert not any(is_held_out(scene) for tag in TAGS for scene in scenes(tag, 100))


def test_the_same_seed_gives_the_same_scenes() -> None:
    assert scenes("two_object", 20) == scenes("two_object", 20)


def test_colours_are_far_apart() -> None:
    for first, second in combinations(COLORS.values(), 2):
        assert np.linalg.norm(np.subtract(first, second)) > 150
