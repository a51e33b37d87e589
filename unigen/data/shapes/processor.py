# SPDX-License-Identifier: Apache-2.0
"""Tokenizer, chat template and image processor of a small Qwen2.5-VL for the world of shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unigen.data.shapes.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from transformers import (
        Qwen2_5_VLProcessor,
    )  # imported where it is used: it brings torchvision, which takes seconds

VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As Qwen2.5-VL's, for messages whose content is a list of texts and images, without a system message."""
MERGE_SIZE, TEMPORAL_PATCH_SIZE = 2, 2


def shapes_processor(vocab_size: int = 640, *, side: int = 32, patch_size: int = 4) -> Qwen2_5_VLProcessor:
    """The processor of images of `side` pixels; always the same for the same numbers.

    Args:
        vocab_size: upper limit of the words of the tokenizer, to which the marks of images are added.
        patch_size: of the vision tower, which sees every 2 x 2 patches as one token.
    """
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    tokenizer = train_tokenizer(vocab_size)
    tokenizer.add_tokens(list(VISION_TOKENS), special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    sizes: dict[str, Any] = {
        "patch_size": patch_size,
        "merge_size": MERGE_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH_SIZE,
    }
    pixels = {"shortest_edge": side * side, "longest_edge": side * side}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels, **sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=pixels, **sizes),
        chat_template=CHAT_TEMPLATE,
    )
