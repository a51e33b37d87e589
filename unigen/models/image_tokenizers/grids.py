# SPDX-License-Identifier: Apache-2.0
"""Sizes of images and of their grids of positions, said clearly where they do not fit; the same for every image tokenizer."""

import math

from torch import Tensor

from unigen.errors import DataError


def require_whole_positions(pixels_B3HW: Tensor, factor: int) -> None:
    """Complain of images whose sides are no multiples of the `factor` pixels that a position stands for.

    Raises:
        DataError: naming the size and the multiple.
    """
    height, width = pixels_B3HW.shape[-2:]
    if height % factor or width % factor:
        raise DataError(
            f"an image of {height}x{width} pixels cannot be tokenized: "
            f"height and width must be multiples of {factor}; resize or crop it first"
        )


def full_grid(num_positions: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) in positions: `grid`, or a square where it is not given.

    Raises:
        DataError: so many positions do not fill it.
    """
    side = math.isqrt(num_positions)
    height, width = grid or (side, side)
    if height * width != num_positions:
        raise DataError(f"{num_positions} positions do not fill a grid of {height}x{width}: give grid=(height, width)")
    return height, width
