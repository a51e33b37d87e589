# SPDX-License-Identifier: Apache-2.0
"""The image that DPG-Bench scores: the four drawings of a prompt as the tiles of one square, and its tiles again.

`plain` sets the tiles side by side. `released` leaves black lines of two pixels around and between them, as the released
evaluation of UniGen does, while its tiles are cut out as if there were none: shifted by up to four pixels, and with lines.
"""

from collections.abc import Sequence
from typing import Literal

from PIL import Image

from unigen.errors import EvaluationError

GridStyle = Literal["plain", "released"]
PADDING = {"plain": 0, "released": 2}
"""Pixels around and between tiles."""
BLACK = (0, 0, 0)

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, the latter two exclusive."""


def make_grid(images: Sequence[Image.Image], style: GridStyle) -> Image.Image:
    """One image, which stays as it is, or four of one size: top left, top right, bottom left, bottom right."""
    if len(images) == 1:
        return images[0].convert("RGB")
    width, height = images[0].size
    padding = PADDING[style]
    grid = Image.new("RGB", (2 * width + 3 * padding, 2 * height + 3 * padding), BLACK)
    for place, image in enumerate(images):
        row, column = divmod(place, 2)
        grid.paste(image, (padding + column * (width + padding), padding + row * (height + padding)))
    return grid


def tile_boxes(size: tuple[int, int], num_tiles: int, style: GridStyle) -> list[Box]:
    """Where the tiles of a grid of this size are cut out.

    Raises:
        EvaluationError: no four equal tiles make a grid of this size.
    """
    if num_tiles == 1:
        return [(0, 0, *size)]
    lines = 3 * PADDING[style]
    if any((side - lines) % 2 or side <= lines for side in size):
        raise EvaluationError(
            f"an image of {size[0]}x{size[1]} is no {style} grid of 2x2 tiles; give another dpg.grid or num_images=1"
        )
    width, height = ((side - lines) // 2 for side in size)
    return [
        (column * width, row * height, (column + 1) * width, (row + 1) * height)
        for row in range(2)
        for column in range(2)
    ]
