# SPDX-License-Identifier: Apache-2.0
"""UAE's texts, in the words of the chat template of the world of shapes."""

from typing import Any

import pytest

from unigen.data.shapes.processor import shapes_processor
from unigen.sequence.templates.uae import UaeTemplate


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return shapes_processor(400).tokenizer


def template(tokenizer: Any, role: str = "generate", *, is_opened: bool = True) -> UaeTemplate:
    return UaeTemplate(tokenizer, role, is_opened)


def test_a_prompt_is_a_message_of_its_own_role(tokenizer: Any) -> None:
    def words(**kind: Any) -> str:
        return tokenizer.decode(template(tokenizer, **kind).draw_prompt("a red circle"))

    assert words() == "<|im_start|>generate\na red circle<|im_end|>\n<|im_start|>assistant\n"
    assert words(role="user", is_opened=False) == "<|im_start|>user\na red circle<|im_end|>\n"


def test_a_questions_images_follow_its_first_message_and_an_answer_may_be_begun(tokenizer: Any) -> None:
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    found = template(tokenizer).question((), "what is it?", 2)
    assert found == f"<|im_start|>user\nwhat is it?{image * 2}<|im_end|>\n<|im_start|>assistant\n"
    history = (("what is it?", "a circle"),)
    assert template(tokenizer).question(history, "how big?", 1, "It is") == (
        f"<|im_start|>user\nwhat is it?{image}<|im_end|>\n<|im_start|>assistant\na circle<|im_end|>\n"
        "<|im_start|>user\nhow big?<|im_end|>\n<|im_start|>assistant\nIt is"
    )
