# SPDX-License-Identifier: Apache-2.0
"""The detector answers what a question checks, and nothing else."""

import io

from PIL import Image

from unigen.annotation.judges.detector import DetectorJudge
from unigen.annotation.judges.judge import Reply, Request
from unigen.data.shapes.render import render
from unigen.data.shapes.scene import Scene, SceneObject


def red_circle() -> bytes:
    buffer = io.BytesIO()
    render(Scene("colors", (SceneObject("circle", "red", 0.25, 0.25, 0.375),)), 32).save(buffer, "png")
    return buffer.getvalue()


def ask(image: bytes | None, **fields: object) -> Reply:
    ((_, reply),) = DetectorJudge().replies([(0, Request("is it so?", image, fields))])
    return reply


def test_a_check_is_answered_by_what_is_in_the_image() -> None:
    red, blue = ({"include": [{"class": "circle", "count": 1, "color": color}]} for color in ("red", "blue"))
    assert ask(red_circle(), check=red) == Reply("yes")
    assert ask(red_circle(), check=blue) == Reply("no")


def test_a_question_without_a_check_or_with_a_bad_one_or_no_image_is_an_error() -> None:
    check = {"include": [{"class": "circle", "count": 1}]}
    assert "made by rule" in (ask(red_circle()).error or "")
    assert "made by rule" in (ask(None, check=check).error or "")
    assert "class" in (ask(red_circle(), check={"include": [{}]}).error or "")
    assert "unreadable_image" in (ask(b"no image", check=check).error or "")


def test_an_empty_image_holds_nothing() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "png")
    assert ask(buffer.getvalue(), check={"include": [{"class": "circle", "count": 1}]}) == Reply("no")
