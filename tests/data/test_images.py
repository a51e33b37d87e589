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


def test_a_draft_keeps_the_short_side_and_is_close_to_exact_decoding() -> None:
    smooth = Image.fromarray(np.uint8(np.add.outer(np.arange(256), np.arange(384))[..., None] // 3 + [0, 10, 20]))
    content = encoded(smooth, "JPEG", quality=95)
    exact = decode_image(content, max_pixels=200_000)
    for side, size in ((64, (96, 64)), (65, (192, 128)), (200, (384, 256)), (999, (384, 256))):
        draft = decode_image(content, max_pixels=200_000, draft_side=side)
        assert draft.size == size
        error = np.abs(np.asarray(draft, int) - np.asarray(exact.resize(size, Image.Resampling.BOX), int))
        assert error.mean() < 3
    other = encoded(smooth)
    assert decode_image(other, max_pixels=200_000, draft_side=32).size == (384, 256), "only JPEG can"


def test_exact_decoding_is_pillows_own() -> None:
    content = encoded(noise(96, 64), "JPEG")
    with Image.open(io.BytesIO(content)) as image:
        assert decode_image(content, max_pixels=10_000).tobytes() == image.convert("RGB").tobytes()


def test_several_crops_run_evenly_from_one_end_to_the_other() -> None:
    values = np.repeat(np.arange(64, dtype=np.uint8), 16 * 3).reshape(64, 16, 3).transpose(1, 0, 2)
    image = Image.fromarray(np.ascontiguousarray(values))  # 64 wide, 16 high, each column its own value
    left = [int((square_pixels(image, 16, crop, 3)[0, 0, 0] + 1) * 127.5 + 0.5) for crop in range(3)]
    assert left == [0, 24, 48]
    assert torch.equal(square_pixels(image, 16, 1, 3), square_pixels(image, 16))


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
