# SPDX-License-Identifier: Apache-2.0
"""From an image to what the detector sees: OpenMMLab's test pipeline without mmcv and OpenCV.

Resized with its proportions kept to fit 1333 x 800, padded to a multiple of 32 with grey, normalised.

Legend: B images, H rows, W columns, C the three colours.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unigen.errors import EvaluationError

LONG_SIDE, SHORT_SIDE = 1333, 800
DIVISOR = 32
PADDING = 128
"""The value of all three colours, before they are normalised."""
MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)
SHORTEST_PADDED_SIDE = 8 * DIVISOR
"""Below it the last stage is smaller than a window, where implementations of Swin differ."""

_WEIGHT_BITS = 11


@dataclass(frozen=True)
class DetectorInput:
    """One image as the detector takes it, and what it takes to find the way back."""

    pixels_CHW: Tensor
    """Normalised and padded, float32."""
    resized: tuple[int, int]
    """Height and width before padding."""
    original: tuple[int, int]
    """Height and width of the image."""


def open_upright(path: Path) -> Image.Image:
    """An RGB image turned as its EXIF entry says; transparency is dropped, as OpenCV drops it.

    Raises:
        EvaluationError: it is absent or damaged.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's complaints about absent, foreign and damaged files
        raise EvaluationError(f"cannot read {path}: {' '.join(str(error).split())}; draw it again") from error


def prepare(image: Image.Image) -> DetectorInput:
    """An RGB image of any size as the detector's input.

    Raises:
        EvaluationError: the image is so narrow that the detector's windows do not fit.
    """
    size = resized_size(image.height, image.width)
    values_HWC = resize_linear(np.asarray(image, dtype=np.uint8), *size)
    down, right = (-side % DIVISOR for side in size)
    if min(size[0] + down, size[1] + right) < SHORTEST_PADDED_SIDE:
        raise EvaluationError(f"an image of {image.width} x {image.height} pixels is too narrow for the detector")
    padded_HWC = np.pad(values_HWC, ((0, down), (0, right), (0, 0)), constant_values=PADDING)
    pixels_CHW = torch.from_numpy(padded_HWC).permute(2, 0, 1).float()
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return DetectorInput((pixels_CHW - mean) / deviation, size, (image.height, image.width))


def resized_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the largest image of the same proportions within 1333 x 800, rounded half up."""
    scale = min(LONG_SIDE / max(height, width), SHORT_SIDE / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resize_linear(values_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resizing of 8-bit values without smoothing, in the whole numbers of OpenCV's INTER_LINEAR: weights of 11 bits,
    columns first, then rows with the lowest bits cut off. To exactly a half in both directions four values are averaged."""
    if values_HWC.shape[:2] == (height, width):
        return values_HWC
    values = values_HWC.astype(np.int64)
    if values.shape[:2] == (2 * height, 2 * width):
        total = values[0::2, 0::2] + values[0::2, 1::2] + values[1::2, 0::2] + values[1::2, 1::2]
        return ((total + 2) >> 2).astype(np.uint8)
    left_W, right_W, weight_W = _neighbours(values.shape[1], width)
    weight_W = np.where(
        left_W == right_W, 0, weight_W
    )  # beyond an edge; for rows OpenCV adds the two parts all the same
    upper_H, lower_H, weight_H = _neighbours(values.shape[0], height)
    one = 1 << _WEIGHT_BITS
    rows = values[:, left_W] * (one - weight_W)[:, None] + values[:, right_W] * weight_W[:, None]
    upper = ((rows[upper_H] >> 4) * (one - weight_H)[:, None, None]) >> 16
    lower = ((rows[lower_H] >> 4) * weight_H[:, None, None]) >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _neighbours(before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `after` places the two of `before` that it lies between, and the weight of the second in 1/2048."""
    place = ((np.arange(after) + 0.5) * (before / after) - 0.5).astype(np.float32)
    first = np.floor(place)
    weight = np.rint((place - first) * np.float32(1 << _WEIGHT_BITS)).astype(np.int64)
    last = before - 1
    return first.clip(0, last).astype(np.int64), (first + 1).clip(0, last).astype(np.int64), weight
