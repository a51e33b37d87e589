# SPDX-License-Identifier: Apache-2.0
"""Captions of the same images by two models, judged pairwise (Unified-Bench, protocol 2): each pair is shown in either order,
since judges favour a place.

The paper's request to its judges is not known; this one is ours, and part of what a run is known by.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unigen.annotation.judges.judge import Judge, Request, ask_about_units
from unigen.annotation.prompts import read_entries
from unigen.annotation.step import Done, Failed, Line, StepWithoutFiles, Unit
from unigen.errors import DataError

Side = Literal["a", "b"]
ORDERS: tuple[tuple[Side, Side], ...] = (("a", "b"), ("b", "a"))
TIE: Literal["tie"] = "tie"
REQUEST = (
    "Here are two descriptions of this image.\n\nDescription 1:\n{first}\n\nDescription 2:\n{second}\n\n"
    "Which of them lets someone who cannot see the image picture it more faithfully: says more of what is there, more exactly, "
    "and less of what is not? Being long is no merit in itself, and neither is being first. Weigh them in a few words, then end "
    "with one line that is 'Verdict: 1', 'Verdict: 2' or 'Verdict: tie'."
)
_VERDICT = re.compile(r"verdict\W*\b(1|2|tie)\b", re.IGNORECASE)
_BARE = re.compile(r"\W*(1|2|tie)\W*", re.IGNORECASE)


@dataclass(frozen=True)
class Duel:
    """One image and what each model says of it."""

    name: str
    image: Path
    captions: Mapping[Side, str]


class CaptionDuels(StepWithoutFiles):
    """What a judge prefers, of every image in both orders."""

    name = "caption duels"

    def __init__(self, duels: Sequence[Duel], judge: Judge) -> None:
        self._duels, self._judge = duels, judge

    def identity(self) -> Mapping[str, Any]:
        return {"captions": _captions_hash(self._duels), "judge": {**self._judge.identity(), "request": REQUEST}}

    def notes(self) -> Mapping[str, Any]:
        return self._judge.notes()

    def units(self) -> Sequence[Unit]:
        return [Unit(duel.name, duel) for duel in self._duels]

    def work(self, units: Sequence[Unit]) -> Iterator[Done | Failed]:
        return ask_about_units(self._judge, units, _requests, _lines)


def read_duels(first: Path, second: Path, images: Path | None = None) -> list[Duel]:
    """The captions of two files of JSON lines with `image` and `caption`, paired by the image's file name, in the first's order.
    `unigen reconstruct` (captions.jsonl) and the benchmark unified_bench (images.jsonl) write such files.

    Args:
        images: where the images lie; else they are where the first file says.
    Raises:
        DataError: a line that is none, an image twice, or one that the other file lacks.
    """
    ours, theirs = _read_captions(first), _read_captions(second)
    _require_same_images(first, ours, theirs)
    _require_same_images(second, theirs, ours)
    return [
        Duel(
            name,
            Path(entry["image"]) if images is None else images / name,
            {"a": entry["caption"], "b": theirs[name]["caption"]},
        )
        for name, entry in ours.items()
    ]


def parse_verdict(reply: str, order: tuple[Side, Side]) -> Side | Literal["tie"] | None:
    """Whom a reply prefers, shown in this order; None where it does not say. The last verdict in it counts."""
    stated = _VERDICT.findall(reply) or [found[1] for found in [_BARE.fullmatch(reply)] if found]
    if not stated:
        return None
    return TIE if stated[-1].lower() == TIE else order[int(stated[-1]) - 1]


def _read_captions(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry in read_entries(path, {"image": str, "caption": str}):
        name = Path(entry["image"]).name
        if name in found:
            raise DataError(f"{path} has two captions of {name}; keep one")
        found[name] = entry
    if not found:
        raise DataError(f"{path} holds no caption")
    return found


def _require_same_images(path: Path, found: Collection[str], other: Collection[str]) -> None:
    lacking = [name for name in other if name not in found]
    if lacking:
        raise DataError(f"{path} has no caption of {lacking[0]}, which the other file has; caption the same images")


def _requests(unit: Unit) -> Sequence[Request]:
    duel: Duel = unit.content
    try:
        content = duel.image.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {duel.image}: {error.strerror}; say where the images lie with --images"
        ) from error
    return [
        Request(REQUEST.format(first=duel.captions[first], second=duel.captions[second]), content)
        for first, second in ORDERS
    ]


def _lines(unit: Unit, replies: Sequence[str]) -> Sequence[Line]:
    """One line an image: the verdict of each order, null where the reply holds none, and the replies."""
    verdicts = [parse_verdict(reply, order) for reply, order in zip(replies, ORDERS, strict=True)]
    return [{"image": unit.name, "verdicts": verdicts, "replies": list(replies)}]


def _captions_hash(duels: Sequence[Duel]) -> str:
    digest = hashlib.sha256()
    for duel in duels:
        for part in (duel.name, *duel.captions.values()):
            digest.update(len(part.encode()).to_bytes(8, "little"))
            digest.update(part.encode())
    return digest.hexdigest()
