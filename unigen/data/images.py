# SPDX-License-Identifier: Apache-2.0
"""From the bytes of an image file to an RGB image, and from there to the square pixels of the image tokenizer."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from unigen.data.faults import SampleRefused

PAD_GREY = 127
MAX_PIXELS = 2**28
"""Images beyond are refused before they are decoded, where no setting says otherwise."""
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
_PIXEL_VALUES = torch.arange(256, dtype=torch.float32).div_(255.0).sub_(0.5).div_(0.5).numpy()
"""What each value of a channel is in [-1, 1]: to look it up takes half as long as to compute it for every pixel."""


def decode_image(content: bytes, *, max_pixels: int = MAX_PIXELS, draft_side: int | None = None) -> Image.Image:
    """The RGB image in `content`: upright (EXIF), transparent parts on white, the first frame of an animation.

    Args:
        draft_side: approximate: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where its short side stays this long.

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
        raise SampleRefused(
            "enormous_image",
            f"{width} x {height} pixels are more than {max_pixels} (in training data.max_image_pixels)",
        )
    try:
        if draft_side is not None:
            image.draft("RGB", (draft_side, draft_side))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)
    except Exception as error:  # as above
        raise SampleRefused("unreadable_image", _one_line(error)) from error


def read_image_file(path: Path) -> bytes:
    """Raises SampleRefused, `missing_image`, for a file that is not there, cannot be read or has no possible name."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SampleRefused("missing_image", f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SampleRefused("missing_image", f"{str(path)!r}: {error}") from error


def describe_transform(num_crops: int, *, is_draft: bool, is_padded: bool = False) -> str:
    """A name of all that `decode_image` and `square_pixels` or `padded_pixels` do to an image; it changes whenever they do."""
    crops = "short side bicubic, " + ("centre crop" if num_crops == 1 else f"{num_crops} even crops")
    shape = "long side bicubic, padded with grey" if is_padded else crops
    return f"upright RGB on white, {shape}{', approximate draft' if is_draft else ''}"


def square_pixels(image: Image.Image, resolution: int, crop: int = 0, num_crops: int = 1) -> torch.Tensor:
    """Short side to `resolution` (bicubic), the square number `crop` of `num_crops`, values in [-1, 1].

    Returns:
        float32 tensor of shape (3, resolution, resolution).
    """
    return _pixels(square(image, resolution, crop, num_crops))


def padded_pixels(image: Image.Image, resolution: int) -> torch.Tensor:
    """Long side to `resolution` (bicubic), grey above and below or left and right, values in [-1, 1].

    Returns:
        float32 tensor of shape (3, resolution, resolution).
    """
    return _pixels(ImageOps.pad(image, (resolution, resolution), Image.Resampling.BICUBIC, color=(PAD_GREY,) * 3))


def _pixels(image: Image.Image) -> torch.Tensor:
    values_CHW = np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
    return torch.from_numpy(_PIXEL_VALUES.take(values_CHW))


def square(image: Image.Image, resolution: int, crop: int = 0, num_crops: int = 1) -> Image.Image:
    """The image with its short side resized to `resolution` and its long side cropped: around the centre, or for several
    crops at evenly spaced places from its one end to the other."""
    width, height = image.size
    short = min(width, height)
    if short != resolution:
        # The long side is rounded down, the crop's corner to the nearest even number of pixels, as torchvision does.
        width, height = (int(resolution * side / short) for side in (width, height))
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    share = 0.5 if num_crops == 1 else crop / (num_crops - 1)
    left, top = round((width - resolution) * share), round((height - resolution) * share)
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
