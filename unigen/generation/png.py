# SPDX-License-Identifier: Apache-2.0
"""Drawn images as PNG files that say how they were made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unigen.data.whole_files import whole_file


def write_png(image: Image.Image, path: Path, text: Mapping[str, Any] | None = None) -> None:
    """Write an image with `text` in its metadata; beside and renamed, so that a half-written file is never there."""
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, str(value))
    with whole_file(path) as partial:
        image.save(partial, "png", pnginfo=info)


def is_whole_image(path: Path) -> bool:
    """Whether the file is there and decodes to its end."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):  # Pillow's complaints about absent, foreign and damaged files
        return False
    return True
