# SPDX-License-Identifier: Apache-2.0
"""Scenes of the world of shapes that are what a GenEval-style prompt asks for: the truth that a judge must accept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unigen.data.shapes.scene import Scene, SceneObject, relations, sample_any_scene


def scene_for(metadata: Mapping[str, Any], rng: np.random.Generator) -> Scene:
    """A random scene with exactly the objects of a prompt's `include`, where the prompt wants them."""
    kinds = [(item["class"], item.get("color")) for item in metadata["include"] for _ in range(item["count"])]
    while True:
        places = sample_any_scene(metadata["tag"], rng).objects
        if len(places) != len(kinds):
            continue
        things = [
            replace(places[index], shape=shape, color=color or places[index].color)
            for index, (shape, color) in zip(rng.permutation(len(places)), kinds, strict=True)
        ]
        if _lie_as_wanted(metadata["include"], things):
            return Scene(metadata["tag"], tuple(sorted(things, key=lambda thing: thing.cell[::-1])))


def _lie_as_wanted(include: Sequence[Mapping[str, Any]], things: Sequence[SceneObject]) -> bool:
    """Whether every wanted relation holds; prompts about positions have one object an item."""
    return all(
        item["position"][0] in relations(things[index], things[item["position"][1]])
        for index, item in enumerate(include)
        if "position" in item
    )
