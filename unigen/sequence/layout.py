# SPDX-License-Identifier: Apache-2.0
"""One description of a row: its list of segments. Everything else a model needs is derived from it here.

Legend: L length of a packed row, N images of one kind in a row, I code slots of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

IGNORED = -100
"""Target of a position that is not supervised, torch's default."""
PADDING = -1
"""Document number of a padding position, and block number of a position outside any block."""


class Kind(Enum):
    TEXT = "text"
    CODES = "codes"
    FEATURES = "features"


class Visibility(Enum):
    """Who may see the columns of a segment, besides the later rows of its document, which always do."""

    CAUSAL = "causal"
    BLOCK = "block"
    """All rows of the same run of neighbouring BLOCK segments."""
    OPEN = "open"
    """All rows of the document."""


class Supervision(Enum):
    NONE = "none"
    NEXT_TOKEN = "next_token"
    """Each token of the segment is predicted from the position before it."""
    MASKED = "masked"
    """Codes that were masked are predicted in place."""


@dataclass(frozen=True)
class Segment:
    """A run of positions of one kind. `token_ids` is given for text only; codes and features are filled in later."""

    kind: Kind
    length: int
    token_ids: tuple[int, ...] = ()
    visibility: Visibility = Visibility.CAUSAL
    supervision: Supervision = Supervision.NONE

    def __post_init__(self) -> None:
        assert self.kind is not Kind.TEXT or len(self.token_ids) == self.length
        assert self.supervision is not Supervision.MASKED or self.kind is Kind.CODES
        assert self.supervision is Supervision.NONE or self.kind is not Kind.FEATURES


def text(
    token_ids: Sequence[int],
    *,
    visibility: Visibility = Visibility.CAUSAL,
    supervision: Supervision = Supervision.NONE,
) -> Segment:
    return Segment(Kind.TEXT, len(token_ids), tuple(token_ids), visibility, supervision)


def codes(
    length: int, *, visibility: Visibility = Visibility.CAUSAL, supervision: Supervision = Supervision.NONE
) -> Segment:
    return Segment(Kind.CODES, length, (), visibility, supervision)


def features(length: int, *, visibility: Visibility = Visibility.CAUSAL) -> Segment:
    return Segment(Kind.FEATURES, length, (), visibility)


@dataclass(frozen=True)
class Document:
    """The segments of one sample, in order, and the task whose loss its targets count for."""

    task: int
    segments: tuple[Segment, ...]

    @property
    def length(self) -> int:
        return sum(segment.length for segment in self.segments)

    @property
    def prefix_length(self) -> int:
        """Positions before the first block: their states depend on nothing after them, so they can be cached."""
        total = 0
        for segment in self.segments:
            if segment.visibility is Visibility.BLOCK:
                break
            total += segment.length
        return total


@dataclass(frozen=True)
class CodeSlots:
    """Where one image's codes go in a row, and at which positions they are predicted (IGNORED where nowhere)."""

    slots_I: np.ndarray
    targets_I: np.ndarray
    supervision: Supervision


@dataclass
class RowLayout:
    """A row of packed documents, flat. Ids at code and feature slots are 0 until those are filled in."""

    input_ids_L: np.ndarray
    targets_L: np.ndarray
    positions_L: np.ndarray
    documents_L: np.ndarray
    blocks_L: np.ndarray
    open_L: np.ndarray
    tasks_L: np.ndarray
    code_slots: list[CodeSlots] = field(default_factory=list)
    feature_slots: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def empty(cls, length: int) -> "RowLayout":
        def filled(value: int) -> np.ndarray:
            return np.full(length, value, dtype=np.int64)

        return cls(
            input_ids_L=filled(0),
            targets_L=filled(IGNORED),
            positions_L=filled(0),
            documents_L=filled(PADDING),
            blocks_L=filled(PADDING),
            open_L=np.zeros(length, dtype=bool),
            tasks_L=filled(0),
        )


def lay_out(documents: Sequence[Document], length: int) -> RowLayout:
    """Put documents one after another into a row of `length` positions; what is left over is padding.

    Blocks are numbered over the row, so that two blocks of one document stay apart. RoPE positions restart in each document.
    """
    row = RowLayout.empty(length)
    start = block = 0
    for number, document in enumerate(documents):
        stop = start + document.length
        assert stop <= length, "the packer gave a row more than it holds"
        row.documents_L[start:stop] = number
        row.positions_L[start:stop] = np.arange(document.length)
        row.tasks_L[start:stop] = document.task
        block = _place_segments(row, document, start, block)
        start = stop
    return row


def _place_segments(row: RowLayout, document: Document, first: int, block: int) -> int:
    """Write the segments of a document that begins at `first`; returns the next unused block number."""
    start = first
    inside = False
    for segment in document.segments:
        stop = start + segment.length
        is_block = segment.visibility is Visibility.BLOCK
        block += inside and not is_block
        inside = is_block
        if is_block:
            row.blocks_L[start:stop] = block
        row.open_L[start:stop] = segment.visibility is Visibility.OPEN
        _place_content(row, segment, start, first)
        start = stop
    return block + inside


def _place_content(row: RowLayout, segment: Segment, start: int, first: int) -> None:
    slots = np.arange(start, start + segment.length)
    if segment.kind is Kind.TEXT:
        row.input_ids_L[slots] = segment.token_ids
        if segment.supervision is Supervision.NEXT_TOKEN:
            predictors = slots - 1
            in_document = predictors >= first  # the first token of a document has no predecessor
            row.targets_L[predictors[in_document]] = np.asarray(segment.token_ids)[in_document]
    elif segment.kind is Kind.CODES:
        shift = {Supervision.NEXT_TOKEN: -1, Supervision.MASKED: 0}.get(segment.supervision)
        targets = np.full(segment.length, IGNORED) if shift is None else slots + shift
        row.code_slots.append(CodeSlots(slots, targets, segment.supervision))
    else:
        row.feature_slots.append(slots)
