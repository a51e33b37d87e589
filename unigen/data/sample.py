# SPDX-License-Identifier: Apache-2.0
"""What a reader hands on: decoded images and text, before any template or token."""

from dataclasses import dataclass
from typing import Literal

from PIL import Image

from unigen.config.schema import TaskName


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation; the text holds no `<image>` marker and no surrounding blanks."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True)
class RawSample:
    """One record of a source.

    `text` is the caption to draw (t2i) or the running text (lm); `turns` is what is asked and answered about the images (mmu).
    """

    key: str
    """Unique and stable over runs: `source/shard/record`."""
    task: TaskName
    images: tuple[Image.Image, ...] = ()
    text: str = ""
    turns: tuple[Turn, ...] = ()
