# SPDX-License-Identifier: Apache-2.0
"""Messages become one question: no image lost, no word moved past another."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.lmms.rows import picture
from unigen.errors import EvaluationError
from unigen.evaluation.lmms.messages import read_image, read_messages, user_message

ONE, TWO, THREE = (picture(number) for number in range(3))


def _text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def _image(content: Any) -> dict[str, Any]:
    return {"type": "image", "url": content}


def _same(images: tuple[Image.Image, ...], expected: list[Image.Image]) -> bool:
    return [image.tobytes() for image in images] == [image.tobytes() for image in expected]


def test_images_before_the_words_leave_the_words_alone() -> None:
    request = read_messages(user_message([ONE, TWO], "What differs?"), seed=7)
    assert (request.question, request.history, request.seed) == ("What differs?", (), 7)
    assert _same(request.images, [ONE, TWO])


def test_an_image_between_words_leaves_its_number() -> None:
    content = [_image(ONE), _text("What links it to"), _image(TWO), _text("and to "), _image(THREE), _text("?")]
    request = read_messages([{"role": "user", "content": content}])
    assert request.question == "What links it to <image 2> and to  <image 3> ?"
    assert _same(request.images, [ONE, TWO, THREE])


def test_earlier_turns_are_the_history_and_keep_their_images() -> None:
    messages = [
        {"role": "system", "content": [_text("Be brief.")]},
        {"role": "user", "content": [_image(ONE), _text("What is it?")]},
        {"role": "assistant", "content": [_text("A plane.")]},
        {"role": "user", "content": [_image(TWO), _text("And this?")]},
    ]
    request = read_messages(messages)
    assert request.history == (("Be brief.\nWhat is it?", "A plane."),)
    assert request.question == "<image 2> And this?"
    assert _same(request.images, [ONE, TWO])


def test_words_alone_are_a_question_without_images() -> None:
    assert read_messages(user_message([], "2 + 2?")).images == ()
    assert read_messages([{"role": "user", "content": "2 + 2?"}]).question == "2 + 2?"


def test_marks_for_images_are_taken_out_as_in_training() -> None:
    assert read_messages(user_message([ONE], "<image>\nWhat is it?")).question == "What is it?"


@pytest.mark.parametrize("way", ["path", "bytes", "data URL"])
def test_an_image_may_be_a_file_bytes_or_a_data_url(way: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    ONE.save(buffer, "PNG")
    (tmp_path / "one.png").write_bytes(buffer.getvalue())
    encoded = base64.b64encode(buffer.getvalue()).decode()
    value = {
        "path": str(tmp_path / "one.png"),
        "bytes": buffer.getvalue(),
        "data URL": f"data:image/png;base64,{encoded}",
    }
    assert read_image(value[way]).tobytes() == ONE.tobytes()


@pytest.mark.parametrize("value", ["nowhere.png", b"no image", "data:image/png;base64,!!", 7])
def test_what_is_no_image_is_named(value: Any) -> None:
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_image(value)


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}], "gives video"),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "no question"),
        ([], "no question"),
    ],
)
def test_what_cannot_be_asked_is_refused(messages: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(EvaluationError, match=complaint):
        read_messages(messages)
