# SPDX-License-Identifier: Apache-2.0
"""Image -> caption -> image with a model that says one colour and paints it."""

from collections.abc import Iterable, Iterator
from typing import Any

from PIL import Image

from unigen.data.captions import load_prompts
from unigen.generation.pipeline import AskRequest, DrawRequest, Pipeline
from unigen.generation.redrawing import redraw

COLORS = ("red", "blue", "green")


class ColorTeller(Pipeline):
    """Says the colour of an image's first pixel, and paints what it is told; remembers what it was asked with."""

    name = "teller"

    def __init__(self) -> None:
        self.asked: list[AskRequest] = []
        self.told: list[DrawRequest] = []
        self.settings: list[dict[str, Any]] = []

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        self.settings.append(settings)
        for request in requests:
            self.asked.append(request)
            yield next(
                c for c in COLORS if Image.new("RGB", (1, 1), c).getpixel((0, 0)) == request.images[0].getpixel((0, 0))
            )

    def draw_requests(self, requests: Iterable[DrawRequest], **settings: Any) -> Iterator[Image.Image]:
        self.settings.append({name: value for name, value in settings.items() if name != "batch_size"})
        for request in requests:
            self.told.append(request)
            yield Image.new("RGB", (2, 2), request.prompt)

    def describe(self) -> dict[str, Any]:
        return {}


def test_every_image_is_captioned_and_drawn_again_in_order() -> None:
    images = [Image.new("RGB", (2, 2), color) for color in ("blue", "red", "green")]
    teller = ColorTeller()
    found = list(redraw(teller, images, [7, 8, 9], batch_size=2, captioning={"temperature": 1.0}, drawing={"steps": 3}))
    assert [one.caption for one in found] == ["blue", "red", "green"]
    assert [one.image.tobytes() for one in found] == [image.tobytes() for image in images]
    assert [request.seed for request in teller.asked] == [request.seed for request in teller.told] == [7, 8, 9]
    assert teller.settings == [{"temperature": 1.0}, {"steps": 3}] * 2


def test_a_family_asks_in_its_own_words_unless_others_are_given() -> None:
    teller = ColorTeller()
    image = Image.new("RGB", (2, 2), "red")
    list(redraw(teller, [image], [1]))
    list(redraw(teller, [image], [1], request="which colour?"))
    assert [request.question for request in teller.asked] == [load_prompts("long")[0], "which colour?"]
