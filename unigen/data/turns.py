# SPDX-License-Identifier: Apache-2.0
"""From the `conversations` of a LLaVA-style record to turns that begin with the user and end with the assistant."""

import re
from typing import Any, Literal

from unigen.data.faults import SampleRefused
from unigen.data.sample import Turn

IMAGE_MARK = "<image>"
_MARK_AND_BREAK = re.compile(r"[ \t]*<image>[ \t]*")
_ROLES: dict[str, Literal["user", "assistant"]] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}


def read_turns(conversation: Any) -> tuple[Turn, ...]:
    """Turns without image marks and surrounding blanks.

    A leading answer without a question and a trailing question without an answer are left out.

    Raises:
        SampleRefused: `bad_conversation` where roles do not alternate or are unknown, or no answer is left.
    """
    if not isinstance(conversation, list):
        raise SampleRefused("bad_conversation", "it has no list of `conversations`")
    turns = [_read_turn(entry) for entry in conversation]
    if turns and turns[0].role == "assistant":
        turns = turns[1:]
    if turns and turns[-1].role == "user":
        turns = turns[:-1]
    if not turns:
        raise SampleRefused("bad_conversation", "it has no question with an answer")
    for number, turn in enumerate(turns):
        if turn.role != ("user", "assistant")[number % 2]:
            raise SampleRefused("bad_conversation", f"turn {number} is another one of the {turn.role}")
        if turn.role == "assistant" and not turn.text:
            raise SampleRefused("bad_conversation", f"turn {number} is an empty answer")
    return tuple(turns)


def _read_turn(entry: Any) -> Turn:
    role = _ROLES.get(str(entry.get("from")).lower()) if isinstance(entry, dict) else None
    if role is None or not isinstance(entry.get("value"), str):
        raise SampleRefused("bad_conversation", f"a turn is not from human or gpt with a text: {str(entry)[:80]}")
    return Turn(role, without_image_marks(entry["value"]))


def without_image_marks(text: str) -> str:
    """The text as models are trained on it: their images stand before all words, whatever place the marks name."""
    return _MARK_AND_BREAK.sub(" ", text).strip()
