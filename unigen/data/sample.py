# SPDX-License-Identifier: Apache-2.0
"""What a reader hands on: decoded images and text, before any template or token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unigen.config.schema import TaskName

if TYPE_CHECKING:
    from PIL import Image  # what trains on rows alone does without it


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
    codes: tuple[np.ndarray, ...] = ()
    """In the place of images, their codes computed ahead: (crops, positions) each."""
    entry: Mapping[str, Any] | None = None
    """Of a prompt: what its record says besides, such as GenEval's conditions."""
