# SPDX-License-Identifier: Apache-2.0
"""Conversations about images: LLaVA-style JSON (a list) and JSONL.

A record is `{"image": path or list of paths, "conversations": [{"from": "human", "value": ...}, {"from": "gpt", ...}]}`.
Without `image` it is a conversation in text alone.
"""

from typing import Any

from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.record_files import RecordSource
from unigen.data.records import Record
from unigen.data.sample import RawSample
from unigen.data.turns import IMAGE_MARK, read_turns


class ConversationSource(RecordSource):
    """The conversations of one or more local files."""

    bad_cause = "bad_conversation"

    def decode(self, record: Record, draws: Draws) -> RawSample:
        found = self._find(record)
        paths = _image_paths(found.fields)
        turns = read_turns(found.fields.get("conversations"))
        if not paths and _mentions_image(found.fields):
            raise SampleRefused("missing_image", f"it says {IMAGE_MARK} and names no image")
        return RawSample(record.key, "mmu", images=tuple(found.image(path) for path in paths), turns=turns)


def _image_paths(fields: dict[str, Any]) -> list[str]:
    images = fields.get("image") or []
    paths = images if isinstance(images, list) else [images]
    if not all(isinstance(path, str) for path in paths):
        raise SampleRefused("bad_conversation", "its image is neither a path nor a list of paths")
    return paths


def _mentions_image(fields: dict[str, Any]) -> bool:
    return any(IMAGE_MARK in str(turn.get("value")) for turn in fields["conversations"])
