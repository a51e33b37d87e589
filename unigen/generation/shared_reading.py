# SPDX-License-Identifier: Apache-2.0
"""Many questions at once: those about the same images share what their rows begin with, and batches hold rows of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from unigen.data.batch import Batch, Sample
from unigen.generation.autoregressive import Reader, ReadRows, read_behind, read_rows
from unigen.sequence.layout import Document, Kind, Segment, Visibility, text

if TYPE_CHECKING:
    from unigen.generation.pipeline import AskRequest  # which needs Pillow; benchmarks run without it

T = TypeVar("T")
SORTED_BATCHES = 8
"""So many batches are taken from the stream of questions at once and ordered by length."""


def answer_in_batches(
    requests: Iterable[AskRequest], batch_size: int, answer: Callable[[list[AskRequest]], Sequence[T]]
) -> Iterator[T]:
    """What `answer` gives for each request, in the order of the requests; it is called with batches.

    Neighbouring requests about the same images (the same objects) stay neighbours.
    """
    iterator = iter(requests)
    while window := list(islice(iterator, SORTED_BATCHES * batch_size)):
        groups = [list(group) for _, group in groupby(range(len(window)), key=lambda place: images_key(window[place]))]
        groups.sort(key=lambda group: max(_num_characters(window[place]) for place in group))
        order = [place for group in groups for place in group]
        found: dict[int, T] = {}
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            found |= zip(places, answer([window[place] for place in places]), strict=True)
        yield from (found[place] for place in range(len(window)))


def by_images(requests: Sequence[AskRequest]) -> list[list[AskRequest]]:
    """Neighbouring requests about the same images, together."""
    return [list(group) for _, group in groupby(requests, key=images_key)]


def images_key(request: AskRequest) -> tuple[int, ...]:
    """Equal for requests about the same objects; a request without images stands alone."""
    return tuple(map(id, request.images or (request,)))


def _num_characters(request: AskRequest) -> int:
    turns = sum(len(question) + len(answer) for question, answer in request.history)
    return turns + len(request.question) + len(request.answer_start)


@dataclass(frozen=True)
class ReadingRow:
    """A row to be read, and how many of its last states are looked at."""

    sample: Sample
    num_states: int = 1


@dataclass(frozen=True)
class SharedRows:
    """Rows split in two: beginnings, each read once, and what each row has behind its own."""

    beginnings: list[Sample]
    index: list[int]
    """Which beginning each row has."""
    texts: list[list[int]]
    """The token ids of each row behind it, at least as many as states are looked at."""


def share_beginnings(groups: Sequence[Sequence[ReadingRow]]) -> SharedRows:
    """Split rows, given as groups of rows with the same images, at the end of the words that all of a group begin with."""
    shared = SharedRows([], [], [])
    for number, group in enumerate(groups):
        words = [split_at_images(row.sample)[1] for row in group]
        most = min(len(ids) - row.num_states for ids, row in zip(words, group, strict=True))
        common = min(common_length(words), most)
        shared.beginnings.append(with_words(group[0].sample, words[0][:common]))
        shared.index.extend([number] * len(group))
        shared.texts.extend(list(ids[common:]) for ids in words)
    return shared


def read_groups(
    model: Reader,
    groups: Sequence[Sequence[ReadingRow]],
    prepare: Callable[[Sequence[Sample]], tuple[Batch, Tensor | None]],
    num_new: int = 0,
) -> ReadRows:
    """Read rows, given as groups of rows with the same images; what a group begins with is read once.

    Args:
        prepare: one sample a row -> what `read_rows` takes, on the model's device.
        num_new: tokens to be written behind the rows.
    """
    if all(len(group) == 1 for group in groups):
        return read_rows(model, *prepare([row.sample for group in groups for row in group]), num_new)
    shared = share_beginnings(groups)
    rows = read_rows(model, *prepare(shared.beginnings))
    index_B = torch.tensor(shared.index, device=rows.ends_B.device)
    return read_behind(model, rows, index_B, shared.texts, num_new)


def common_length(rows: Sequence[Sequence[int]]) -> int:
    """How many ids all rows begin with."""
    columns = zip(*rows, strict=False)
    return sum(1 for _ in _while_equal(columns))


def _while_equal(columns: Iterable[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    for column in columns:
        if len(set(column)) > 1:
            return
        yield column


def split_at_images(sample: Sample) -> tuple[list[Segment], list[int]]:
    """The segments up to the last that is an image or open to all rows, and the token ids of all text after them."""
    segments = list(sample.document.segments)
    is_head = [one.kind is not Kind.TEXT or one.visibility is Visibility.OPEN for one in segments]
    last = max((place for place, found in enumerate(is_head) if found), default=-1)
    return segments[: last + 1], [token for segment in segments[last + 1 :] for token in segment.token_ids]


def with_words(sample: Sample, words: Sequence[int]) -> Sample:
    """The sample with other text behind its images."""
    segments = (*split_at_images(sample)[0], text(words))
    return replace(sample, document=Document(sample.document.task, segments))
