# SPDX-License-Identifier: Apache-2.0
"""Questions that share what they begin with get the answers and probabilities that each gets alone, from the whole row."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from unigen.errors import ConfigError
from unigen.generation.pipeline import AskRequest, Pipeline
from unigen.generation.shared_reading import answer_in_batches
from unigen.generation.unigen import UnigenPipeline
from unigen.reference.rating import answer_slowly, yes_probability_slowly

NEW = 10


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


FIRST, SECOND, THIRD = picture(1), picture(2), picture(3)
REQUESTS = [
    AskRequest("is it red? Please answer yes or no.", (FIRST,)),
    AskRequest("is it rather a blue circle? Please answer yes or no.", (FIRST,)),
    AskRequest("is it?", (FIRST,), answer_start="<think_start> is it a cross?"),
    AskRequest("is it?", (SECOND, THIRD), history=(("what shape is it?", "a square"),)),
    AskRequest("is it red? Please answer yes or no.", (SECOND,)),
    AskRequest("is it red? Please answer yes or no.", (SECOND,)),
    AskRequest("a long question about everything that could be seen in this one picture?", (THIRD,)),
]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_shared_beginnings_give_the_answers_of_whole_rows(pipeline: UnigenPipeline, batch_size: int) -> None:
    answers = list(pipeline.ask_requests(REQUESTS, batch_size=batch_size, max_new_tokens=NEW))
    assert answers == [answer_slowly(pipeline, request, NEW) for request in REQUESTS]
    assert len(set(answers)) > 3


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_shared_beginnings_give_the_probabilities_of_whole_rows(pipeline: UnigenPipeline, batch_size: int) -> None:
    found = list(pipeline.yes_probabilities(REQUESTS, batch_size=batch_size))
    slow = [yes_probability_slowly(pipeline, request) for request in REQUESTS]
    assert found == pytest.approx(slow, rel=1e-4)
    assert all(0 < value < 1 for value in found)
    assert len({round(value, 4) for value in found}) > 3


def test_five_questions_about_one_image_cost_little_more_than_one(pipeline: UnigenPipeline) -> None:
    def flops(count: int) -> int:
        requests = [AskRequest(f"is it {number}?", (FIRST,)) for number in range(count)]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            list(pipeline.yes_probabilities(requests))
        return counter.get_total_flops()

    assert flops(5) < 3 * flops(1), "the image is read once for all of them"


def test_batches_hold_like_lengths_and_answers_keep_their_order() -> None:
    batches = []

    def answer(batch: list[AskRequest]) -> list[str]:
        batches.append([len(request.question) for request in batch])
        return [request.question for request in batch]

    questions = ["?" * length for length in (9, 1, 8, 2, 7, 3)]
    requests = [AskRequest(question, (picture(place),)) for place, question in enumerate(questions)]
    assert list(answer_in_batches(requests, 2, answer)) == questions
    assert batches == [[1, 2], [3, 7], [8, 9]]


def test_questions_about_one_image_stay_together() -> None:
    batches = []

    def answer(batch: list[AskRequest]) -> list[int]:
        batches.append({id(request.images[0]) for request in batch})
        return [0] * len(batch)

    requests = [AskRequest("?" * length, (image,)) for image in (FIRST, SECOND) for length in (1, 5)]
    assert list(answer_in_batches(requests, 2, answer)) == [0] * 4
    assert [len(images) for images in batches] == [1, 1]


def test_a_family_without_probabilities_says_so() -> None:
    class Mute(Pipeline):
        name = "mute"
        draw_requests = ask_requests = describe = None  # type: ignore[assignment]

    with pytest.raises(ConfigError, match=r"mute: .* do not tell the probability"):
        Mute().yes_probabilities([])
