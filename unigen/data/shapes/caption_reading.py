# SPDX-License-Identifier: Apache-2.0
"""What objects a caption of the world of shapes claims, and how far they are the true ones.

Made for the captions that the world writes and for what a model that learnt from them makes of them: other words between are
passed over, digits are numbers, "upper" is "top". How two objects lie to each other is not read: their quadrants say it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment

from unigen.data.shapes.captions import NUMBERS, plural
from unigen.data.shapes.scene import COLORS, SHAPES

Cell = tuple[int, int]

_SHAPE_WORDS = {**{shape: shape for shape in SHAPES}, **{plural(shape): shape for shape in SHAPES}}
_PLURALS = {plural(shape) for shape in SHAPES}
_COUNTS = {
    **{word: count for count, word in enumerate(NUMBERS)},
    **{str(count): count for count in range(10)},
    **dict.fromkeys(("a", "an", "another"), 1),
    "no": 0,
}
_ROWS, _COLUMNS = {"top": 0, "upper": 0, "bottom": 1, "lower": 1}, {"left": 0, "right": 1}
_DEFINITE = ("the", "this", "that")
_COPULAS = ("is", "are")
_REACH = 4  # words before a shape among which its colour and number stand
_BARE_PLURAL = 2  # "circles" without a number are two at the least


class TrueObject(Protocol):
    """An object whose every property is known."""

    @property
    def shape(self) -> str: ...

    @property
    def color(self) -> str | None: ...

    @property
    def cell(self) -> Cell | None: ...


@dataclass(frozen=True)
class ClaimedObject:
    """One object of a caption; what the caption leaves out is None."""

    shape: str
    color: str | None = None
    cell: Cell | None = None

    def agrees(self, thing: TrueObject) -> bool:
        """Whether all that is claimed is true of `thing`."""
        return self.shape == thing.shape and self.color in (None, thing.color) and self.cell in (None, thing.cell)


@dataclass(frozen=True)
class CaptionAccuracy:
    """Of the claimed objects the share that is true, of the true ones the share that is claimed, and their harmonic mean."""

    precision: float
    recall: float
    f1: float


@dataclass
class _Mention:
    """Some objects of one kind, as a part of a sentence names them."""

    shape: str
    color: str | None
    count: int
    is_definite: bool
    """Speaks of an object that is there anyway, and so adds none."""
    cells: list[Cell] = field(default_factory=list)


def caption_accuracy(caption: str, objects: Sequence[TrueObject]) -> CaptionAccuracy:
    """How well a caption tells the objects of a scene: each true object answers for one claim at the most.

    A caption that claims nothing has a score of 0.
    """
    claims = claimed_objects(caption)
    if not claims or not objects:
        return CaptionAccuracy(0.0, 0.0, 0.0)
    agrees = np.array([[claim.agrees(thing) for thing in objects] for claim in claims])
    right = int(agrees[linear_sum_assignment(agrees, maximize=True)].sum())
    return CaptionAccuracy(right / len(claims), right / len(objects), 2 * right / (len(claims) + len(objects)))


def claimed_objects(caption: str) -> list[ClaimedObject]:
    """The objects that a caption speaks of, however often it names each.

    Of each kind there are as many as the sentence that names most of them says, or as quadrants are named for them. A shape
    without a colour is one of the coloured ones of that shape, where there are enough.
    """
    sentences = [list(_mentions(sentence)) for sentence in re.split(r"[.;!?\n]+", caption.lower())]
    found: list[ClaimedObject] = []
    for shape, color in dict.fromkeys((one.shape, one.color) for sentence in sentences for one in sentence):
        own = [[one for one in sentence if (one.shape, one.color) == (shape, color)] for sentence in sentences]
        cells = list(dict.fromkeys(cell for sentence in own for one in sentence for cell in one.cells))
        count = max(len(cells), *map(_named, own))
        found += [ClaimedObject(shape, color, cell) for cell in [*cells, *[None] * count][:count]]
    return [claim for shape in SHAPES for claim in _without_repeats([one for one in found if one.shape == shape])]


def _without_repeats(claims: Sequence[ClaimedObject]) -> list[ClaimedObject]:
    """The claims of one shape, without those that say less of an object that is claimed with its colour."""
    colored = [claim for claim in claims if claim.color is not None]
    bare = [claim for claim in claims if claim.color is None]
    known = {claim.cell for claim in colored}
    # Those with a quadrant of their own last: they are the least likely to be the same object.
    bare.sort(key=lambda claim: claim.cell is not None and claim.cell not in known)
    return [*colored, *bare[len(colored) :]]


def _named(mentions: Sequence[_Mention]) -> int:
    """How many objects of a kind one sentence names."""
    return max(sum(one.count for one in mentions if not one.is_definite), int(any(one.is_definite for one in mentions)))


def _mentions(sentence: str) -> Iterator[_Mention]:
    """The mentions of a sentence, with the quadrants that stand before each ("in the top left is a circle") or after it."""
    words = re.findall(r"[a-z]+|\d+", sentence)
    mentions: list[_Mention] = []
    waiting: list[Cell] = []
    leads = False  # whether quadrants stand before what lies in them
    start = 0
    for place, word in enumerate(words):
        cell = _cell(words[place : place + 2])
        if cell is not None:
            leads = leads or not mentions
            if leads:
                waiting.append(cell)
            elif len(mentions[-1].cells) < mentions[-1].count:
                mentions[-1].cells.append(cell)
            start = place + 2
        elif word in _SHAPE_WORDS:
            mention = _mention(words, place, start)
            mention.cells += waiting[: mention.count]
            waiting.clear()
            mentions.append(mention)
            start = place + 1
    yield from mentions


def _mention(words: Sequence[str], place: int, start: int) -> _Mention:
    """What the words before the shape at `place`, from `start` on, say of it; or the colour after it: "the circle is red"."""
    color, count, is_definite = None, _BARE_PLURAL if words[place] in _PLURALS else 1, False
    for word in reversed(words[max(start, place - _REACH) : place]):
        if word in _COUNTS or word in _DEFINITE:
            count, is_definite = _COUNTS.get(word, 1), word in _DEFINITE
            break
        color = color or (word if word in COLORS else None)
    after = words[place + 1 : place + 3]
    if color is None and len(after) == 2 and after[0] in _COPULAS and after[1] in COLORS:
        color = after[1]
    return _Mention(_SHAPE_WORDS[words[place]], color, count, is_definite)


def _cell(words: Sequence[str]) -> Cell | None:
    """The quadrant that two words name."""
    if len(words) < 2 or words[0] not in _ROWS or words[1] not in _COLUMNS:
        return None
    return _COLUMNS[words[1]], _ROWS[words[0]]
