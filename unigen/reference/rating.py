# SPDX-License-Identifier: Apache-2.0
"""Rating written plainly: one question about one image at a time, the whole row computed again for every token.

Legend: L positions of the row, V vocabulary, K feature slots, F vision width.
"""

from dataclasses import replace

import torch
from torch import Tensor

from unigen.data.batch import Batch, CodeImage, Sample, collate, fill_codes
from unigen.data.images import padded_pixels, square_pixels
from unigen.generation.autoregressive import Reader
from unigen.generation.next_position import BranchReader
from unigen.generation.pipeline import AskRequest
from unigen.generation.unifork import UniForkPipeline
from unigen.generation.unigen import UnigenPipeline, vision_features
from unigen.generation.yes_no import SPELLINGS
from unigen.reference.reading import write_text_slowly
from unigen.sequence.layout import Document


@torch.no_grad()
def answer_slowly(pipeline: UnigenPipeline | UniForkPipeline, request: AskRequest, max_new_tokens: int) -> str:
    """The text that `ask_requests` must give at temperature 0."""
    batch, features_KF = _row(pipeline, request, request.answer_start)
    stop_id, size = pipeline.tokenizer.convert_tokens_to_ids("<|im_end|>"), len(pipeline.tokenizer)
    assert isinstance(stop_id, int)
    ids = write_text_slowly(_reader(pipeline), batch, features_KF, stop_id, size, max_new_tokens)
    return str(pipeline.tokenizer.decode(ids, skip_special_tokens=True)).strip()


@torch.no_grad()
def yes_probability_slowly(pipeline: UnigenPipeline | UniForkPipeline, request: AskRequest) -> float:
    """The number that `yes_probabilities` must give: each of the four words is spelled out as far as it differs from its
    opposite, one token a forward pass."""
    before = f"{request.answer_start} " if request.answer_start else ""
    rows = {word: _row(pipeline, request, before + word) for pair in SPELLINGS for word in pair}
    ids = {word: batch.input_ids_RL[0].tolist() for word, (batch, _) in rows.items()}
    base = _common_length(list(ids.values()))
    prob = {}
    for pair in SPELLINGS:
        parting = _common_length([ids[word] for word in pair])
        for word in pair:
            prob[word] = 1.0
            for place in range(base, parting + 1):
                probs_V = _next_probs(pipeline, *rows[word], place)
                prob[word] *= float(probs_V[ids[word][place]])
    yes = sum(prob[word] for word, _ in SPELLINGS)
    return yes / sum(prob.values())


def _next_probs(
    pipeline: UnigenPipeline | UniForkPipeline, batch: Batch, features_KF: Tensor | None, place: int
) -> Tensor:
    """Probabilities (V,) over text of the token at `place` of a row, given all before it."""
    place_L = torch.arange(place, device=batch.input_ids_RL.device)
    is_seen_LL = (place_L[None, :] <= place_L[:, None]) | batch.visible.open_RL[0][None, :place]
    reader = _reader(pipeline)
    hidden_1LD = reader(
        batch.input_ids_RL[:, :place], place_L[None], is_seen_LL[None, None], features_KF, batch.feature_slots_K
    )
    logits_V = hidden_1LD[0, -1] @ reader.output_embedding_VD.T
    return torch.softmax(logits_V[: len(pipeline.tokenizer)].double(), dim=-1)


def _row(pipeline: UnigenPipeline | UniForkPipeline, request: AskRequest, answer: str) -> tuple[Batch, Tensor | None]:
    """The row of one question with the beginning of its answer, and the features of its images."""
    if isinstance(pipeline, UniForkPipeline):
        return _forked_row(pipeline, request, answer)
    template, turns, tower = pipeline.template, request.history, pipeline.vision_tower
    device, images = pipeline.model.device, request.images
    if tower is None:
        pixels = [square_pixels(one.convert("RGB"), pipeline.model.config.image_resolution) for one in images]
        segments = template.question_over_codes(turns, request.question, len(images), answer)
        batch = collate([[Sample("", Document(0, segments), tuple(CodeImage(one) for one in pixels))]]).to(device)
        return fill_codes(
            batch, pipeline.image_tokenizer.encode(torch.stack(batch.code_images)), pipeline.vocabulary
        ), None
    seen = [tower.preprocess(one) for one in images]
    segments = template.question_over_features(turns, request.question, [tower.num_tokens(one) for one in seen], answer)
    batch = collate([[Sample("", Document(0, segments), feature_images=tuple(seen))]]).to(device)
    return batch, vision_features(tower, seen, device)


def _forked_row(pipeline: UniForkPipeline, request: AskRequest, answer: str) -> tuple[Batch, Tensor]:
    """The same for UniFork, which sees the features that the image's codes stand for."""
    side, tokenizer = pipeline.model.config.image_resolution, pipeline.image_tokenizer
    pixels = [padded_pixels(one.convert("RGB"), side) for one in request.images]
    segments = pipeline.template.question(request.history, request.question, len(pixels), answer)
    batch = collate([[Sample("", Document(0, segments), tuple(CodeImage(one) for one in pixels))]])
    found = [tokenizer.lookup(tokenizer.encode(one[None])).flatten(0, 1) for one in pixels]
    features_KF = torch.cat(found) if found else torch.zeros(0, tokenizer.feature_size)
    return replace(batch, feature_slots_K=batch.code_slots_NI.flatten()), features_KF


def _reader(pipeline: UnigenPipeline | UniForkPipeline) -> Reader:
    if isinstance(pipeline, UniForkPipeline):
        return BranchReader(pipeline.model, "understanding")
    return pipeline.model


def _common_length(rows: list[list[int]]) -> int:
    shortest = min(map(len, rows))
    return next((place for place in range(shortest) if len({row[place] for row in rows}) > 1), shortest)
