# SPDX-License-Identifier: Apache-2.0
"""What a judge is: someone who is asked in words, perhaps about an image, and replies in words."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from unigen.annotation.step import Done, Failed, Line, Unit
from unigen.data.faults import SampleRefused
from unigen.errors import UnigenError

K = TypeVar("K")


@dataclass(frozen=True)
class Request:
    """One question to a judge."""

    text: str
    image: bytes | None = None
    """An image file's content."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What the entry says besides, for a judge that knows more than words."""


@dataclass(frozen=True)
class Reply:
    """What a judge said; `error` in its place where it did not."""

    text: str = ""
    error: str | None = None


class Judge(Protocol):
    """Anyone who replies to requests."""

    def identity(self) -> Mapping[str, Any]:
        """All that replies depend on; never a key."""
        ...

    def notes(self) -> Mapping[str, Any]:
        """What is worth keeping of this run besides; never a key."""
        ...

    def replies(self, requests: Iterable[tuple[K, Request]]) -> Iterator[tuple[K, Reply]]:
        """A reply to each request under the request's own key, as soon as it is there, in any order.

        Requests are taken as there is room for them, so that they may be many.
        """
        ...


def ask_about_units(
    judge: Judge,
    units: Iterable[Unit],
    requests_of: Callable[[Unit], Sequence[Request]],
    lines_of: Callable[[Unit, Sequence[str]], Sequence[Line]],
) -> Iterator[Done | Failed]:
    """Ask everything about every unit; a unit's result comes with its last reply.

    Args:
        requests_of: at least one request of a unit; may refuse it by SampleRefused or any UnigenError.
        lines_of: the lines that the replies make; may refuse likewise.
    """
    waiting: dict[str, tuple[Unit, list[Reply | None]]] = {}
    refused: deque[Failed] = deque()

    def all_requests() -> Iterator[tuple[tuple[str, int], Request]]:
        for unit in units:
            try:
                requests = requests_of(unit)
            except (SampleRefused, UnigenError) as error:
                refused.append(Failed(unit, reason_of(error)))
                continue
            waiting[unit.name] = (unit, [None] * len(requests))
            yield from (((unit.name, number), request) for number, request in enumerate(requests))

    for (name, number), reply in judge.replies(all_requests()):
        unit, replies = waiting[name]
        replies[number] = reply
        if None not in replies:
            del waiting[name]
            yield _result(unit, [one for one in replies if one is not None], lines_of)
        while refused:
            yield refused.popleft()
    yield from refused
    yield from (Failed(unit, "the judge left a request without a reply") for unit, _ in waiting.values())


def reason_of(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, SampleRefused):
        return " ".join(f"{error.cause} {error.detail}".split())
    return " ".join(str(error).split())


def _result(
    unit: Unit, replies: Sequence[Reply], lines_of: Callable[[Unit, Sequence[str]], Sequence[Line]]
) -> Done | Failed:
    errors = [reply.error for reply in replies if reply.error is not None]
    if errors:
        return Failed(unit, errors[0])
    try:
        return Done(unit, lines_of(unit, [reply.text for reply in replies]))
    except (SampleRefused, UnigenError) as error:
        return Failed(unit, reason_of(error))
