# SPDX-License-Identifier: Apache-2.0
"""From the bytes of an image file to an RGB image, and from there to the square pixels of the image tokenizer."""

import io

import numpy as np
import torch
from PIL import Image, ImageOps

from unigen.data.faults import SampleRefused

_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


def decode_image(content: bytes, *, max_pixels: int) -> Image.Image:
    """The RGB image in `content`: upright (EXIF), transparent parts on white, the first frame of an animation.

    Raises:
        SampleRefused: `enormous_image` past `max_pixels` (judged by the header, before decoding), else
            `unreadable_image`; a file that breaks off is unreadable, never half grey.
    """
    try:
        image = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise SampleRefused("enormous_image", str(error)) from error
    except Exception as error:  # Pillow's readers raise almost anything on damaged input
        raise SampleRefused("unreadable_image", _one_line(error)) from error
    width, height = image.size
    if width * height > max_pixels:
        raise SampleRefused("enormous_image", f"{width} x {height} pixels, data.max_image_pixels is {max_pixels}")
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)
    except Exception as error:  # as above
        raise SampleRefused("unreadable_image", _one_line(error)) from error


def square_pixels(image: Image.Image, resolution: int) -> torch.Tensor:
    """Short side to `resolution` (bicubic), centre crop, values in [-1, 1].

    Returns:
        float32 tensor of shape (3, resolution, resolution).
    """
    image = centre_square(image, resolution)
    values_HWC = torch.from_numpy(np.array(image, dtype=np.uint8))
    return values_HWC.permute(2, 0, 1).to(torch.float32).div_(255.0).sub_(0.5).div_(0.5).contiguous()


def centre_square(image: Image.Image, resolution: int) -> Image.Image:
    """The image with its short side resized to `resolution` and its long side cropped around the centre."""
    width, height = image.size
    short = min(width, height)
    if short != resolution:
        # The long side is rounded down, the crop's corner to the nearest even number of pixels, as torchvision does.
        width, height = (int(resolution * side / short) for side in (width, height))
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - resolution) / 2.0), round((height - resolution) / 2.0)
    if (width, height) == (resolution, resolution):
        return image
    return image.crop((left, top, left + resolution, top + resolution))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _WIDE_MODES:
        return _from_wide(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _from_wide(image: Image.Image) -> Image.Image:
    """Grey images of 16 or 32 bits, which Pillow would clip at 255: the top 8 of 16 bits; floats are taken as [0, 1]."""
    values = np.asarray(image)
    scaled = values * 255.0 if image.mode == "F" else values.astype(np.int64) / 257.0
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)).convert("RGB")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
