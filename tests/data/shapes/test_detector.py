# SPDX-License-Identifier: Apache-2.0
"""The detector reads renders right, judged by GenEval's rule as in the benchmark, and is not fooled."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unigen.data.detection import Detection
from unigen.data.shapes.detector import ACCEPTED_SCORE, detect
from unigen.data.shapes.prompts import geneval_prompts
from unigen.data.shapes.render import BACKGROUND, render
from unigen.data.shapes.scene import COLORS, TAGS, Scene, SceneObject, sample_any_scene
from unigen.rewards.geneval_rules import Thresholds, judge

THRESHOLDS = Thresholds(score=ACCEPTED_SCORE, counting_score=ACCEPTED_SCORE)


def degrade(image: Image.Image, rng: np.random.Generator, blur: float = 1.0, noise: float = 10.0) -> Image.Image:
    """Blur (in pixels of a 32-pixel image) and noise (in grey levels)."""
    blurred = image.filter(ImageFilter.GaussianBlur(blur * image.width / 32))
    noisy = np.asarray(blurred) + rng.normal(0, noise, (image.height, image.width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def truth(scene: Scene) -> list[Detection]:
    return [
        Detection(
            thing.shape,
            (thing.x - thing.size / 2, thing.y - thing.size / 2, thing.x + thing.size / 2, thing.y + thing.size / 2),
            1.0,
            thing.color,
        )
        for thing in scene.objects
    ]


def matching_scene(prompt: dict[str, Any], rng: np.random.Generator) -> Scene:
    while True:
        scene = sample_any_scene(prompt["tag"], rng)
        if judge(prompt, truth(scene), THRESHOLDS).correct:
            return scene


@pytest.mark.parametrize("is_degraded", [False, True])
@pytest.mark.parametrize("tag", TAGS)
def test_renders_are_accepted_for_their_prompts_and_refused_for_others(tag: str, is_degraded: bool) -> None:
    rng = np.random.default_rng(0)
    prompts = [prompt for prompt in geneval_prompts() if prompt["tag"] == tag]
    accepted, wrongly_accepted = [], []
    for prompt in prompts * 2:
        scene = matching_scene(prompt, rng)
        image = render(scene, 32)
        found = detect(degrade(image, rng) if is_degraded else image)
        accepted.append(judge(prompt, found, THRESHOLDS).correct)
        others = [other for other in prompts if not judge(other, truth(scene), THRESHOLDS).correct]
        wrongly_accepted += [judge(other, found, THRESHOLDS).correct for other in others[::3]]
    assert np.mean(accepted) >= 0.99
    assert len(wrongly_accepted) > 300
    assert np.mean(wrongly_accepted) <= 0.02


@pytest.mark.parametrize("resolution", [24, 32, 64, 100, 256])
def test_boxes_and_kinds_are_found_at_any_resolution(resolution: int) -> None:
    scene = Scene(
        "two_object",
        (SceneObject("circle", "green", 0.25, 0.25, 0.34), SceneObject("cross", "purple", 0.75, 0.72, 0.32)),
    )
    found = {detection.class_name: detection for detection in detect(render(scene, resolution))}
    assert {name: detection.color for name, detection in found.items()} == {"circle": "green", "cross": "purple"}
    for expected in truth(scene):
        box = np.array(found[expected.class_name].box) / resolution
        assert box == pytest.approx(np.array(expected.box), abs=0.03)


def test_same_coloured_neighbours_do_not_merge_even_when_blurred() -> None:
    squares = tuple(
        SceneObject("square", "white", x, y, 44 / 128) for y in (36 / 128, 92 / 128) for x in (36 / 128, 92 / 128)
    )
    found = detect(degrade(render(Scene("counting", squares), 32), np.random.default_rng(0)))
    assert [detection.class_name for detection in found if detection.score > ACCEPTED_SCORE] == ["square"] * 4


def test_a_poor_tokenizers_blur_and_noise_are_still_read_right() -> None:
    rng = np.random.default_rng(0)
    accepted = []
    for prompt in geneval_prompts()[::3]:
        found = detect(degrade(render(matching_scene(prompt, rng), 32), rng, blur=1.4, noise=20.0))
        accepted.append(judge(prompt, found, THRESHOLDS).correct)
    assert np.mean(accepted) >= 0.97


def test_slightly_wrong_colours_keep_their_names() -> None:
    rng = np.random.default_rng(0)
    for color in COLORS:
        pixels = np.asarray(render(Scene("colors", (SceneObject("circle", color, 0.25, 0.25, 0.33),)), 32), np.float32)
        for _ in range(10):
            shifted = (pixels + rng.uniform(-25, 25, 3)).clip(0, 255).astype(np.uint8)
            best = detect(Image.fromarray(shifted))[0]
            assert (best.class_name, best.color) == ("circle", color)
            assert best.score > ACCEPTED_SCORE


def test_nothing_acceptable_is_found_where_no_object_was_drawn() -> None:
    rng = np.random.default_rng(0)
    assert detect(Image.new("RGB", (32, 32), BACKGROUND)) == []
    specks = np.full((32, 32, 3), BACKGROUND, np.uint8)
    specks[4:6, 4:7] = COLORS["red"]
    half = np.full((32, 32, 3), BACKGROUND, np.uint8)
    half[:, :16] = COLORS["blue"]
    images = [specks, half, np.full((32, 32, 3), COLORS["red"], np.uint8)]
    images += [rng.integers(0, 256, (32, 32, 3)).astype(np.uint8) for _ in range(20)]
    for pixels in images:
        assert all(found.score <= ACCEPTED_SCORE for found in detect(Image.fromarray(pixels)))


def test_an_object_of_two_colours_is_not_accepted() -> None:
    pixels = np.full((32, 32, 3), BACKGROUND, np.uint8)
    pixels[3:13, 3:8], pixels[3:13, 8:13] = COLORS["red"], COLORS["green"]
    assert all(found.score <= ACCEPTED_SCORE for found in detect(Image.fromarray(pixels)))
