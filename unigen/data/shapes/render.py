# SPDX-License-Identifier: Apache-2.0
"""Scenes to pixels, at any resolution, with soft edges.

Shape suffixes: H, W pixels of a stamp; C colour channels.
"""

import math
from functools import lru_cache

import numpy as np
from PIL import Image

from unigen.data.shapes.scene import COLORS, Scene

BACKGROUND = (24, 24, 32)

_SUPERSAMPLING = 8
_SQUARE_HALF_SIDE = 0.9
_TRIANGLE_TOP, _TRIANGLE_BOTTOM = -0.95, 0.9
_CROSS_HALF_ARM = 0.34


def covers(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether points belong to a shape that fills [-1, 1] squared; u grows to the right, v downwards."""
    if shape == "circle":
        return u**2 + v**2 <= 1
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= _SQUARE_HALF_SIDE
    if shape == "triangle":
        share = (v - _TRIANGLE_TOP) / (_TRIANGLE_BOTTOM - _TRIANGLE_TOP)
        return (abs(u) <= share) & (share <= 1)
    if shape == "cross":
        return (np.minimum(abs(u), abs(v)) <= _CROSS_HALF_ARM) & (np.maximum(abs(u), abs(v)) <= 1)
    raise ValueError(f"no shape called {shape!r}")


def render(scene: Scene, resolution: int) -> Image.Image:
    """Draw a scene as an RGB image of `resolution` x `resolution` pixels."""
    pixels_HWC = np.empty((resolution, resolution, 3), dtype=np.uint8)
    pixels_HWC[:] = BACKGROUND
    for thing in scene.objects:
        size = thing.size * resolution
        left, top = (math.floor(middle * resolution - size / 2) for middle in (thing.x, thing.y))
        stamp_HWC = _stamp(thing.shape, thing.color, size, thing.x * resolution - left, thing.y * resolution - top)
        pixels_HWC[top : top + stamp_HWC.shape[0], left : left + stamp_HWC.shape[1]] = stamp_HWC
    return Image.fromarray(pixels_HWC)


@lru_cache(maxsize=8192)
def _stamp(shape: str, color: str, size: float, x: float, y: float) -> np.ndarray:
    """An object on the background as (H, W, C) bytes, its centre at (x, y) of the stamp."""
    width, height = math.ceil(x + size / 2), math.ceil(y + size / 2)
    u = ((np.arange(width * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - x) / (size / 2)
    v = ((np.arange(height * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - y) / (size / 2)
    inside = covers(shape, u[None, :], v[:, None]).astype(np.float64)
    coverage_HW = inside.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING).mean(axis=(1, 3))
    background = np.array(BACKGROUND, dtype=np.float64)
    return np.rint(background + coverage_HW[..., None] * (np.array(COLORS[color]) - background)).astype(np.uint8)
