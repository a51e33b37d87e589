# SPDX-License-Identifier: Apache-2.0
"""Captioned images as JSON records: `{"image": path, "caption": text}`, a line each or in a list.

In the place of a caption a record may hold LLaVA's `conversations`, of which the first answer is the caption.
"""

from typing import Any

from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.image_text import CaptionUse
from unigen.data.record_files import RecordSource
from unigen.data.records import Record
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
        path, caption = found.fields.get("image"), _caption(found.fields)
        if not isinstance(path, str) or not path:
            raise SampleRefused("missing_image", f"its image is {str(path)[:80]!r}, not a path")
        return self._captions.sample(record, caption, draws, images=lambda: (found.image(path),))


def _caption(fields: dict[str, Any]) -> str:
    if "caption" not in fields and "conversations" in fields:
        return read_turns(fields["conversations"])[1].text
    if not isinstance(fields.get("caption"), str):
        raise SampleRefused("missing_key", "it has no text under `caption`")
    return str(fields["caption"])
