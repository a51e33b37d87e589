# SPDX-License-Identifier: Apache-2.0
"""Grids of four drawings: the plain one gives its tiles back, the released one cuts as the released evaluation did."""

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.painter import painted
from unigen.errors import EvaluationError
from unigen.evaluation.dpg.grid import make_grid, tile_boxes

TILES = [painted(seed).resize((256, 256), Image.Resampling.NEAREST) for seed in range(4)]


def test_the_tiles_of_a_plain_grid_are_the_drawings() -> None:
    grid = make_grid(TILES, "plain")
    assert grid.size == (512, 512)
    cut = [grid.crop(box) for box in tile_boxes(grid.size, 4, "plain")]
    assert [tile.tobytes() for tile in cut] == [tile.tobytes() for tile in TILES]


def test_the_released_grid_has_black_lines_and_shifted_tiles() -> None:
    grid = make_grid(TILES, "released")
    assert grid.size == (518, 518)
    pixels = np.asarray(grid)
    assert not pixels[:2].any()
    assert not pixels[258:260].any()
    assert pixels[2:258, 2:258].tobytes() == TILES[0].tobytes()
    assert pixels[260:516, 260:516].tobytes() == TILES[3].tobytes()
    boxes = tile_boxes(grid.size, 4, "released")
    assert boxes == [(0, 0, 256, 256), (256, 0, 512, 256), (0, 256, 256, 512), (256, 256, 512, 512)]
    first = np.asarray(grid.crop(boxes[0]))
    assert not first[:2].any()
    assert first[2:, 2:].tobytes() == np.asarray(TILES[0])[:254, :254].tobytes()


def test_the_released_grid_is_that_of_torchvision() -> None:
    import torch
    from torchvision.utils import make_grid as torchvision_grid

    pixels_B3HW = torch.stack([torch.from_numpy(np.array(tile)).permute(2, 0, 1) for tile in TILES])
    expected = torchvision_grid(pixels_B3HW, nrow=2).permute(1, 2, 0).numpy()
    assert np.asarray(make_grid(TILES, "released")).tobytes() == expected.tobytes()


def test_one_drawing_is_its_own_grid() -> None:
    assert make_grid(TILES[:1], "released").tobytes() == TILES[0].tobytes()
    assert tile_boxes((256, 256), 1, "released") == [(0, 0, 256, 256)]


def test_a_size_that_is_no_grid_is_named() -> None:
    with pytest.raises(EvaluationError, match="517x512 is no plain grid"):
        tile_boxes((517, 512), 4, "plain")
