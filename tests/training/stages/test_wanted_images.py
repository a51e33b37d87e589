# SPDX-License-Identifier: Apache-2.0
"""What is made of a record for a policy that draws."""

from typing import Any, Literal

import pytest
from PIL import Image

from tests.tiny_uae import processor
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.sample import RawSample
from unigen.sequence.templates.uae import UaeTemplate
from unigen.training.stages.wanted_images import WantedImagePreparer

DRAWS = Draws(0, "one", 3)


def preparer(prompts: Literal["written", "given"], **sizes: Any) -> WantedImagePreparer:
    template = UaeTemplate(processor().tokenizer, "generate", True)
    return WantedImagePreparer(template, **{"resolution": 8, "max_text_tokens": 40, "prompts": prompts, **sizes})


def test_an_image_to_be_written_of_is_a_square_of_the_size_that_is_drawn() -> None:
    picture = Image.new("RGB", (32, 16), "red")
    made = preparer("written")(RawSample("one", "mmu", (picture,), text="not read"), DRAWS)
    assert (made.key, made.visit, made.content.prompt) == ("one", 3, None)
    assert made.content.original.size == (8, 8)


def test_a_prompt_without_an_image_brings_what_it_asks_for() -> None:
    entry = {"tag": "single_object", "include": [{"class": "circle", "count": 1}]}
    made = preparer("given")(RawSample("one", "t2i", text="a circle", entry=entry), DRAWS)
    assert made.content.prompt == "a circle"
    assert made.content.original is None
    assert made.content.entry == entry


@pytest.mark.parametrize(
    ("prompts", "text", "cause"), [("given", "a very long prompt " * 20, "too_long"), ("written", "", "missing_image")]
)
def test_what_cannot_be_drawn_is_refused(prompts: Literal["written", "given"], text: str, cause: str) -> None:
    with pytest.raises(SampleRefused) as caught:
        preparer(prompts)(RawSample("one", "t2i", text=text), DRAWS)
    assert caught.value.cause == cause
