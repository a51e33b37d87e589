# SPDX-License-Identifier: Apache-2.0
"""What a reward is shown: an image and what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, eq=False)
class Judged:
    """An image to be scored. `key` names it where it cannot be."""

    key: str
    image: Image.Image
    prompt: str = ""
    """The words that it was drawn from."""
    original: Image.Image | None = None
    """The image that those words describe, where there is one."""
    entry: Mapping[str, Any] | None = None
    """What the prompt asks for in GenEval's schema (`tag`, `include`, `exclude`), where that is known."""
