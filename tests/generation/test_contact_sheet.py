# SPDX-License-Identifier: Apache-2.0
"""A contact sheet can be read: tiny images are enlarged without smoothing, and long captions stay in their column."""

import numpy as np
from PIL import Image

from unigen.generation.contact_sheet import LARGEST_SIDE, SMALLEST_SIDE, contact_sheet


def test_tiny_images_are_enlarged_by_whole_pixels_of_their_own_colours() -> None:
    image = Image.new("RGB", (32, 32), "red")
    image.putpixel((0, 0), (0, 0, 255))
    sheet = np.asarray(contact_sheet([image], ["a square"], 1))
    assert (sheet == (255, 0, 0)).all(-1).sum() == SMALLEST_SIDE**2 - 25
    assert (sheet == (0, 0, 255)).all(-1).sum() == 25


def test_large_images_are_reduced_and_rows_are_filled_in_order() -> None:
    colors = ["red", "blue", "lime"]
    sheet = contact_sheet([Image.new("RGB", (1000, 500), color) for color in colors], colors, 2)
    assert 2 * LARGEST_SIDE < sheet.width < 2 * LARGEST_SIDE + 60
    places = [
        np.argwhere((np.asarray(sheet) == Image.new("RGB", (1, 1), c).getpixel((0, 0))).all(-1))[0] for c in colors
    ]
    assert places[0][0] == places[1][0] < places[2][0]
    assert places[0][1] == places[2][1] < places[1][1]


def test_a_long_caption_or_word_does_not_widen_the_sheet() -> None:
    image = Image.new("RGB", (32, 32))
    short = contact_sheet([image], ["x"], 1)
    for caption in ("word " * 200, "w" * 500, "", "图像 🙂"):
        assert contact_sheet([image], [caption], 1).width == short.width
