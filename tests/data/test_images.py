# SPDX-License-Identifier: Apache-2.0
"""From bytes to pixels: what is refused, what is turned upright, and the square that the tokenizer sees."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from unigen.data.faults import SampleRefused
from unigen.data.images import decode_image, square_pixels


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values)


def cause_of(content: bytes, max_pixels: int = 1_000_000) -> str:
    with pytest.raises(SampleRefused) as refused:
        decode_image(content, max_pixels=max_pixels)
    return refused.value.cause


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_breaks_off_anywhere_is_unreadable_and_never_half_grey(kind: str) -> None:
    content = encoded(noise(64, 48), kind)
    assert decode_image(content, max_pixels=10_000).size == (64, 48)
    for share in (0.0, 0.1, 0.5, 0.9):
        assert cause_of(content[: int(len(content) * share)]) == "unreadable_image"


def test_an_enormous_image_is_refused_by_its_header_alone() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    claim = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    claim += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert cause_of(claim) == "enormous_image"
    assert cause_of(encoded(noise(101, 100)), max_pixels=10_000) == "enormous_image"
    assert decode_image(encoded(noise(100, 100)), max_pixels=10_000).size == (100, 100)


def test_an_image_that_a_camera_held_sideways_is_turned_upright() -> None:
    upright = Image.new("RGB", (20, 40), "white")
    upright.paste("red", (0, 0, 20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    content = encoded(upright.rotate(90, expand=True), "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode_image(content, max_pixels=10_000)), np.asarray(upright))


def test_transparent_parts_are_white_in_every_mode() -> None:
    layer = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    layer.putpixel((1, 1), (200, 0, 0, 255))
    palette = layer.convert("RGB").quantize(4)
    palette.info["transparency"] = palette.getpixel((0, 0))
    for image in (layer, layer.convert("LA")):
        decoded = decode_image(encoded(image), max_pixels=100)
        assert decoded.mode == "RGB"
        assert decoded.getpixel((0, 0)) == (255, 255, 255)
        assert decoded.getpixel((1, 1)) != (255, 255, 255)
    assert decode_image(encoded(palette), max_pixels=100).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    decoded = decode_image(encoded(Image.fromarray(values)), max_pixels=100)
    assert np.asarray(decoded)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(("width", "height"), [(50, 33), (33, 50), (32, 32), (32, 45), (16, 20), (101, 32)])
def test_the_square_is_what_torchvision_makes(width: int, height: int) -> None:
    image = noise(width, height)
    resized = functional.resize(image, 32, interpolation=functional.InterpolationMode.BICUBIC)
    expected_CHW = functional.normalize(functional.to_tensor(functional.center_crop(resized, [32, 32])), [0.5], [0.5])
    pixels_CHW = square_pixels(image, 32)
    assert pixels_CHW.dtype == torch.float32
    assert pixels_CHW.is_contiguous()
    torch.testing.assert_close(pixels_CHW, expected_CHW, rtol=0, atol=1e-6)
