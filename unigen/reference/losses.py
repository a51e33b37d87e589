# SPDX-License-Identifier: Apache-2.0
"""The losses of rows written plainly, with logits everywhere.

`task_losses_slowly` goes row by row and cell by cell. `padded_loss_sums` is the released algorithm, with its cost: all rows of
a batch as long as the longest task allows, a dense mask, logits of every position over the whole vocabulary.

Legend: R rows, L positions of a row, N positions, D width, V vocabulary, K feature slots, F vision width, I codes of an image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.config.schema import TASKS
from unigen.data.batch import Sample
from unigen.models.unigen import UniGen
from unigen.sequence.layout import IGNORED, Kind, Supervision, Visibility
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
            image_codes = encode_image(image.content) if isinstance(image.content, Tensor) else image.content
            true_ids = [vocabulary.code_offset + int(code) for code in image_codes]
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


def padded_loss_sums(
    model: UniGen, vocabulary: Vocabulary, samples: Sequence[Sample], row_length: int, features_KF: Tensor | None = None
) -> dict[str, Tensor]:
    """The sum of the losses of each task over its supervised positions, with gradient.

    Args:
        samples: with codes computed ahead.
        row_length: every row is padded to it on the right.
        features_KF: vision features of all rows, one after another.
    """
    rows = [_write_row(sample, vocabulary, _codes_are_known) for sample in samples]
    ids_RL = torch.full((len(rows), row_length), vocabulary.pad_id)
    targets_RL = torch.full((len(rows), row_length), IGNORED)
    slots: list[int] = []
    for number, row in enumerate(rows):
        ids_RL[number, : len(row.ids)] = torch.tensor(row.ids)
        for position, token in row.targets:
            targets_RL[number, position] = token
        slots += [number * row_length + slot for slot in row.feature_slots]
    mask_R1LL = torch.stack([_padded_mask(row, row_length) for row in rows])[:, None]
    positions_RL = torch.arange(row_length).expand_as(ids_RL)
    hidden_RLD = model(ids_RL, positions_RL, mask_R1LL, features_KF, torch.tensor(slots, dtype=torch.long))
    logits_RLV = (hidden_RLD @ model.output_embedding_VD.T).float()
    losses_RL = F.cross_entropy(
        logits_RLV.flatten(0, 1), targets_RL.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(targets_RL)
    tasks = [TASKS[sample.document.task] for sample in samples]
    return {task: losses_RL[[name == task for name in tasks]].sum() for task in dict.fromkeys(tasks)}


def _codes_are_known(_: Tensor) -> Tensor:
    raise AssertionError("a sample holds pixels; give codes computed ahead")


def _padded_mask(row: _Row, row_length: int) -> Tensor:
    """Who sees whom in a row (L, L); padding comes after everything else, so that only padding sees it."""
    padding = row_length - len(row.ids)
    blocks_L = torch.tensor([-1 if block is None else block for block in row.blocks] + [-1] * padding)
    is_open_L = torch.tensor([*row.is_open, *[False] * padding])
    is_causal_LL = torch.ones(row_length, row_length, dtype=torch.bool).tril()
    in_one_block_LL = (blocks_L[:, None] == blocks_L[None, :]) & (blocks_L[None, :] >= 0)
    return is_causal_LL | is_open_L[None, :] | in_one_block_LL


def linear_cross_entropy_at_once(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor
) -> tuple[Tensor, Tensor]:
    """What `objectives.cross_entropy.linear_cross_entropy` must give, from the whole (positions x vocabulary) matrix."""
    logits_NV = F.linear(hidden_ND, weight_VD).float()
    losses_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
    return (losses_N * weights_N).sum(), losses_N.detach()
