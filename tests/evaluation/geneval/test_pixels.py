# SPDX-License-Identifier: Apache-2.0
"""The detector's input: OpenCV's resizing to the last bit, the padding, the normalisation, and how files are opened."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unigen.errors import EvaluationError
from unigen.evaluation.geneval.pixels import (
    DEVIATION,
    MEAN,
    open_upright,
    prepare,
    resize_linear,
    resized_size,
)

# What cv2.resize(..., INTER_LINEAR) of OpenCV 5.0.0 makes of `noise`.
ENLARGED = [
    [95, 107, 127, 162, 195, 209, 217],
    [140, 151, 170, 147, 127, 169, 195],
    [207, 217, 233, 125, 26, 110, 163],
    [103, 146, 214, 179, 136, 141, 143],
    [33, 98, 202, 216, 211, 161, 130],
]
REDUCED = [[215, 63, 184, 164, 119], [143, 184, 143, 164, 119], [173, 173, 172, 151, 206], [101, 138, 137, 44, 108]]
HALVED = [[188, 108, 192, 115], [138, 157, 190, 182], [117, 153, 77, 124]]


def noise(seed: int, height: int, width: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((256, 256), (800, 800)),
        ((1024, 1024), (800, 800)),
        ((427, 640), (800, 1199)),
        ((768, 1344), (762, 1333)),
        ((2000, 1100), (1333, 733)),
        ((800, 800), (800, 800)),
        ((801, 799), (802, 800)),
    ],
)
def test_images_are_made_to_fit_1333_by_800_with_their_proportions(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert resized_size(*size) == expected


@pytest.mark.parametrize(
    ("seed", "size", "target", "expected"),
    [
        (0, (3, 4), (5, 7), ENLARGED),
        (1, (6, 8), (4, 5), REDUCED),
        (1, (6, 8), (3, 4), HALVED),
    ],
)
def test_resizing_gives_the_numbers_of_opencv(
    seed: int, size: tuple[int, int], target: tuple[int, int], expected: list[list[int]]
) -> None:
    assert resize_linear(noise(seed, *size), *target)[..., 0].tolist() == expected


@pytest.mark.parametrize(
    ("size", "target", "digest"),
    [
        ((256, 256), (800, 800), "b6d0f15b972b4ed1a3b8eb6a76232abb07bceb993c20509389ec3419f84179aa"),
        ((1024, 768), (1067, 800), "b57e9c5fbf97a17bb77acb647403489535208d567a30b826748ec5a89075f57a"),
    ],
)
def test_resizing_whole_images_gives_the_numbers_of_opencv(
    size: tuple[int, int], target: tuple[int, int], digest: str
) -> None:
    resized = resize_linear(noise(2, *size, 3), *target)
    assert hashlib.sha256(resized.tobytes()).hexdigest() == digest


def test_an_image_of_the_right_size_stays_as_it_is() -> None:
    values = noise(0, 800, 800, 3)
    assert resize_linear(values, 800, 800) is values


def test_the_input_is_padded_with_grey_to_a_multiple_of_32_and_then_normalised() -> None:
    prepared = prepare(Image.new("RGB", (640, 427), (255, 0, 10)))
    assert (prepared.resized, prepared.original) == ((800, 1199), (427, 640))
    assert prepared.pixels_CHW.shape == (3, 800, 1216)
    assert prepared.pixels_CHW.dtype == torch.float32
    mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
    torch.testing.assert_close(prepared.pixels_CHW[:, 0, 0], (torch.tensor([255.0, 0.0, 10.0]) - mean) / deviation)
    torch.testing.assert_close(prepared.pixels_CHW[:, 799, 1198], prepared.pixels_CHW[:, 0, 0])
    torch.testing.assert_close(prepared.pixels_CHW[:, 0, 1199], (torch.tensor([128.0] * 3) - mean) / deviation)
    assert MEAN == (123.675, 116.28, 103.53)
    assert DEVIATION == (58.395, 57.12, 57.375)


def test_a_square_image_is_not_padded() -> None:
    assert prepare(Image.new("RGB", (256, 256))).pixels_CHW.shape == (3, 800, 800)


def test_an_image_too_narrow_for_the_windows_is_refused() -> None:
    with pytest.raises(EvaluationError, match="1000 x 100 pixels is too narrow"):
        prepare(Image.new("RGB", (1000, 100)))


def test_files_are_opened_upright_and_without_their_transparency(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 2), (200, 100, 50, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    upright = open_upright(tmp_path / "turned.png")
    assert upright.size == (2, 4)
    assert upright.getpixel((0, 0)) == (200, 100, 50)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "00000.png").write_bytes(b"nothing")
    with pytest.raises(EvaluationError, match=r"00000\.png.*draw it again"):
        open_upright(tmp_path / "00000.png")
