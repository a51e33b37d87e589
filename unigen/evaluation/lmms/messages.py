# SPDX-License-Identifier: Apache-2.0
"""From chat messages with pictures between their words to one question of a pipeline: all images, earlier turns, the question.

Our models read a conversation's images before its words. An image that a message shows only after some words leaves
`<image N>` in its place, so that the words still say which one they mean.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unigen.data.faults import SampleRefused
from unigen.data.images import decode_image
from unigen.data.turns import without_image_marks
from unigen.errors import EvaluationError
from unigen.generation.pipeline import AskRequest

Message = Mapping[str, Any]
"""`{"role": "user", "content": [{"type": "text", "text": ...}, {"type": "image", "url": ...}]}`"""


def user_message(images: Iterable[Any], text: str) -> list[Message]:
    """One user's turn that shows everything and then asks."""
    shown = [{"type": "image", "url": image} for image in images]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def read_messages(messages: Sequence[Message], seed: int = 0) -> AskRequest:
    """The request that the messages make. A system message is said at the head of the next question.

    Raises:
        EvaluationError: something else than text and images, an image that cannot be read, or no question at the end.
    """
    images: list[Image.Image] = []
    history: list[tuple[str, str]] = []
    asked: list[str] = []
    is_beginning = True
    for message in messages:
        words = _words(message["content"], images, is_beginning)
        is_beginning = is_beginning and message["role"] == "system"
        if message["role"] == "assistant":
            history.append(("\n".join(asked), words))
            asked = []
        else:
            asked.append(words)
    if not asked:
        raise EvaluationError("the messages of a task end with the assistant's; there is no question to answer")
    return AskRequest("\n".join(asked), tuple(images), tuple(history), seed)


def read_image(value: Any) -> Image.Image:
    """An RGB image out of what tasks give: a PIL image, a local path, bytes, or a data URL.

    Raises:
        EvaluationError: it is none of these, or cannot be read.
    """
    if isinstance(value, Image.Image):
        return value.convert("RGB")
    try:
        return decode_image(_image_bytes(value))
    except (OSError, ValueError, binascii.Error, SampleRefused) as error:
        raise EvaluationError(f"an image of a task cannot be read ({str(value)[:80]}): {error}") from error


def _image_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value.startswith("data:image/"):
        return base64.b64decode(value.partition(",")[2], validate=True)
    if isinstance(value, str | Path):
        return Path(value).read_bytes()
    raise ValueError(f"a {type(value).__name__} is not an image")


def _words(content: str | Sequence[Mapping[str, Any]], images: list[Image.Image], is_beginning: bool) -> str:
    """The text of one message; its images are added to `images`."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    words = ""
    for part in parts:
        if part["type"] == "text":
            words += str(part["text"])
        elif part["type"] == "image":
            images.append(read_image(part["url"]))
            if words or not is_beginning:
                words += f" <image {len(images)}> "
        else:
            raise EvaluationError(f"a task gives {part['type']} to look at; these models read text and images")
    return without_image_marks(words)
