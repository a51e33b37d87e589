# SPDX-License-Identifier: Apache-2.0
"""Conversations about images: LLaVA-style JSON (a list) and JSONL.

A record is `{"image": path or list of paths, "conversations": [{"from": "human", "value": ...}, {"from": "gpt", ...}]}`.
Without `image` it is a conversation in text alone.
"""

import json
from typing import Any

from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.record_files import FoundRecord, RecordSource
from unigen.data.records import Record, Undecoded
from unigen.data.sample import RawSample, Turn
from unigen.data.turns import IMAGE_MARK, read_turns

CONVERSATIONS = "conversations"
"""The key of a record that holds its turns."""


class ConversationSource(RecordSource):
    """The conversations of one or more local files."""

    bad_cause = "bad_conversation"

    def decode(self, record: Record, draws: Draws) -> RawSample:
        found, paths, turns = self._read(record)
        return RawSample(record.key, "mmu", images=tuple(found.image(path) for path in paths), turns=turns)

    def undecoded(self, record: Record) -> Undecoded:
        """See `records.EncodableSource`; the conversation is kept as JSON under its own key."""
        found, paths, _ = self._read(record)
        kept = json.dumps({CONVERSATIONS: found.fields[CONVERSATIONS]}, ensure_ascii=False)
        return Undecoded({"json": kept.encode(errors="replace")}, tuple(found.content(path) for path in paths))

    def _read(self, record: Record) -> tuple[FoundRecord, list[str], tuple[Turn, ...]]:
        found = self._find(record)
        paths = _image_paths(found.fields)
        turns = read_turns(found.fields.get(CONVERSATIONS))
        if not paths and _mentions_image(found.fields):
            raise SampleRefused("missing_image", f"it says {IMAGE_MARK} and names no image")
        return found, paths, turns


def _image_paths(fields: dict[str, Any]) -> list[str]:
    images = fields.get("image") or []
    paths = images if isinstance(images, list) else [images]
    if not all(isinstance(path, str) for path in paths):
        raise SampleRefused("bad_conversation", "its image is neither a path nor a list of paths")
    return paths


def _mentions_image(fields: dict[str, Any]) -> bool:
    return any(IMAGE_MARK in str(turn.get("value")) for turn in fields[CONVERSATIONS])
