# SPDX-License-Identifier: Apache-2.0
"""The losses of rows written plainly: one row at a time, a mask cell by cell, logits everywhere, textbook cross-entropy.

Legend: L positions of a row, V vocabulary, K feature slots, F vision width, I codes of an image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unigen.config.schema import TASKS
from unigen.data.batch import Sample
from unigen.models.unigen import UniGen
from unigen.sequence.layout import Kind, Supervision, Visibility
from unigen.sequence.vocabulary import Vocabulary


@dataclass
class _Row:
    """One row, position by position."""

    ids: list[int] = field(default_factory=list)
    is_open: list[bool] = field(default_factory=list)
    blocks: list[int | None] = field(default_factory=list)
    feature_slots: list[int] = field(default_factory=list)
    targets: list[tuple[int, int]] = field(default_factory=list)
    """(position that predicts, token)."""


def task_losses_slowly(
    model: UniGen,
    vocabulary: Vocabulary,
    samples: Sequence[Sample],
    encode_image: Callable[[Tensor], Tensor],
    encode_features: Callable[[object], Tensor],
    image_softmax: str = "full",
) -> dict[str, Tensor]:
    """The mean loss of each task over all its supervised positions, with gradient: what a stage's forward passes must sum to.

    Args:
        encode_image: pixels (3, H, W) -> codes (I,).
        encode_features: what the tower's `preprocess` gave -> features (K, F).
    """
    terms: dict[str, list[Tensor]] = {}
    for sample in samples:
        row = _write_row(sample, vocabulary, encode_image)
        features = [encode_features(image) for image in sample.feature_images]
        logits_LV = _logits(model, row, features)
        task_terms = terms.setdefault(TASKS[sample.document.task], [])
        for position, token in row.targets:
            logits_V = logits_LV[position]
            if image_softmax == "codes" and token >= vocabulary.code_offset:
                logits_V, token = logits_V[vocabulary.code_offset : vocabulary.mask_id], token - vocabulary.code_offset
            task_terms.append(logits_V.exp().sum().log() - logits_V[token])
    return {task: torch.stack(values).mean() for task, values in terms.items() if values}


def _write_row(sample: Sample, vocabulary: Vocabulary, encode_image: Callable[[Tensor], Tensor]) -> _Row:
    row = _Row()
    images = iter(sample.code_images)
    block = 0
    for segment in sample.document.segments:
        first = len(row.ids)
        inside = segment.visibility is Visibility.BLOCK
        block += not inside
        row.is_open += [segment.visibility is Visibility.OPEN] * segment.length
        row.blocks += [block if inside else None] * segment.length
        if segment.kind is Kind.FEATURES:
            row.feature_slots += range(first, first + segment.length)
            row.ids += [0] * segment.length
            continue
        true_ids = list(segment.token_ids)
        is_masked = [False] * segment.length
        if segment.kind is Kind.CODES:
            image = next(images)
            true_ids = [vocabulary.code_offset + int(code) for code in encode_image(image.content)]
            if image.mask_I is not None:
                is_masked = [bool(value) for value in image.mask_I]
        for offset, token in enumerate(true_ids):
            row.ids.append(vocabulary.mask_id if is_masked[offset] else token)
            if segment.supervision is Supervision.MASKED and is_masked[offset]:
                row.targets.append((first + offset, token))
            if segment.supervision is Supervision.NEXT_TOKEN and first + offset > 0:
                row.targets.append((first + offset - 1, token))
    return row


def _logits(model: UniGen, row: _Row, features: Sequence[Tensor]) -> Tensor:
    length = len(row.ids)
    is_seen_LL = torch.zeros(length, length, dtype=torch.bool)
    for i in range(length):
        for j in range(length):
            same_block = row.blocks[i] is not None and row.blocks[i] == row.blocks[j]
            is_seen_LL[i, j] = j <= i or row.is_open[j] or same_block
    hidden_1LD = model(
        torch.tensor([row.ids]),
        torch.arange(length)[None],
        is_seen_LL[None, None],
        torch.cat(list(features)) if features else None,
        torch.tensor(row.feature_slots, dtype=torch.long),
    )
    return (hidden_1LD[0] @ model.output_embedding_VD.T).double()
