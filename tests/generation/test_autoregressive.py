# SPDX-License-Identifier: Apache-2.0
"""Batched, cached reading gives the tokens of full recompute, row by row."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unigen.data.batch import Batch, collate, fill_codes
from unigen.generation.autoregressive import TextSettings, _truncate, write_text
from unigen.generation.pipeline import AskRequest
from unigen.generation.unigen import UnigenPipeline, vision_features
from unigen.reference.reading import write_text_slowly

NEVER = -1  # a stop token that is never written, so that all tokens are compared


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


REQUESTS = [
    AskRequest("what color is the circle?", (picture(0),)),
    AskRequest("how many crosses are there in the whole picture?", (picture(1), picture(2))),
    AskRequest("is it?", (picture(3),), history=(("what shape is it?", "a square"), ("sure?", "yes"))),
    AskRequest("hm?", (picture(4), picture(5), picture(6))),
]


def prepare(pipeline: UnigenPipeline, requests: list[AskRequest]) -> tuple[Batch, Tensor | None]:
    batch = collate([pipeline._reading_rows([request]) for request in requests])
    if batch.code_images:
        batch = fill_codes(batch, pipeline.image_tokenizer.encode(torch.stack(batch.code_images)), pipeline.vocabulary)
    if pipeline.vision_tower is None:
        return batch, None
    return batch, vision_features(pipeline.vision_tower, batch.feature_images, torch.device("cpu"))


def write(pipeline: UnigenPipeline, requests: list[AskRequest], settings: TextSettings, stop: int) -> list[list[int]]:
    batch, features = prepare(pipeline, requests)
    seeds = [request.seed for request in requests]
    return write_text(pipeline.model, batch, features, stop, len(pipeline.tokenizer), settings, seeds)


def test_a_batch_of_unequal_rows_gives_the_tokens_of_full_recompute(pipeline: UnigenPipeline) -> None:
    fast = write(pipeline, REQUESTS, TextSettings(max_new_tokens=12), NEVER)
    for request, tokens in zip(REQUESTS, fast, strict=True):
        batch, features = prepare(pipeline, [request])
        slow = write_text_slowly(pipeline.model, batch, features, NEVER, len(pipeline.tokenizer), 12)
        assert tokens == slow
        assert len(tokens) == 12


def test_a_row_ends_before_its_stop_token_while_others_go_on(pipeline: UnigenPipeline) -> None:
    whole = write(pipeline, REQUESTS, TextSettings(max_new_tokens=12), NEVER)
    stop = whole[0][5]
    for tokens, full in zip(write(pipeline, REQUESTS, TextSettings(max_new_tokens=12), stop), whole, strict=True):
        assert tokens == (full[: full.index(stop)] if stop in full else full)


def test_sampled_text_depends_on_the_seed_and_not_on_the_batch(pipeline: UnigenPipeline) -> None:
    settings = TextSettings(max_new_tokens=8, temperature=1.0, top_k=50, top_p=0.95)
    seeded = [AskRequest(one.question, one.images, one.history, seed) for seed, one in enumerate(REQUESTS)]
    together = write(pipeline, seeded, settings, NEVER)
    assert [write(pipeline, [request], settings, NEVER)[0] for request in seeded] == together
    reseeded = [AskRequest(one.question, one.images, one.history, one.seed + 10) for one in seeded]
    assert write(pipeline, reseeded, settings, NEVER) != together


def test_only_text_is_ever_written(pipeline: UnigenPipeline) -> None:
    tokens = write(pipeline, REQUESTS, TextSettings(max_new_tokens=20, temperature=5.0), NEVER)
    assert max(max(row) for row in tokens) < len(pipeline.tokenizer)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (TextSettings(), [True, True, True, True]),
        (TextSettings(top_k=2), [True, False, True, False]),
        (TextSettings(top_p=0.5), [True, False, False, False]),
        (TextSettings(top_p=0.75), [True, False, True, False]),
        (TextSettings(top_p=0.0), [True, False, False, False]),
    ],
)
def test_top_k_and_top_p_keep_the_most_probable(settings: TextSettings, kept: list[bool]) -> None:
    logits = torch.tensor([[0.6, 0.1, 0.2, 0.1]]).log()
    assert _truncate(logits, settings).isfinite().tolist() == [kept]
