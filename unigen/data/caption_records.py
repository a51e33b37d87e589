# SPDX-License-Identifier: Apache-2.0
"""Captioned images as JSON records: `{"image": path, "caption": text}`, a line each or in a list.

In the place of a caption a record may hold LLaVA's `conversations`, of which the first answer is the caption.
"""

from typing import Any

from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.conversations import CONVERSATIONS
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.image_words import CaptionUse
from unigen.data.record_files import RecordSource
from unigen.data.records import Record, Undecoded
from unigen.data.sample import RawSample
from unigen.data.turns import read_turns


class CaptionSource(RecordSource):
    """The captioned images of one or more local files, to be drawn or described."""

    bad_cause = "not_json"

    def __init__(
        self, name: str, config: SourceConfig, data: DataConfig, seed: int, draft_side: int | None = None
    ) -> None:
        super().__init__(name, config, data, seed, draft_side)
        self._captions = CaptionUse(config)

    def decode(self, record: Record, draws: Draws) -> RawSample:
        found = self._find(record)
        path, caption = _image_path(found.fields), _caption(found.fields)
        return self._captions.sample(record, caption, draws, images=lambda: (found.image(path),))

    def undecoded(self, record: Record) -> Undecoded:
        """See `records.EncodableSource`; the caption is kept as text."""
        found = self._find(record)
        path, caption = _image_path(found.fields), _caption(found.fields)
        if not caption.strip():
            raise SampleRefused("empty_caption", repr(caption[:80]))
        return Undecoded({"txt": caption.encode(errors="replace")}, (found.content(path),))


def _image_path(fields: dict[str, Any]) -> str:
    path = fields.get("image")
    if not isinstance(path, str) or not path:
        raise SampleRefused("missing_image", f"its image is {str(path)[:80]!r}, not a path")
    return path


def _caption(fields: dict[str, Any]) -> str:
    if "caption" not in fields and CONVERSATIONS in fields:
        return read_turns(fields[CONVERSATIONS])[1].text
    if not isinstance(fields.get("caption"), str):
        raise SampleRefused("missing_key", "it has no text under `caption`")
    return str(fields["caption"])
