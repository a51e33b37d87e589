# SPDX-License-Identifier: Apache-2.0
"""Preferences between two images of one prompt: JSON (a list) and JSONL.

A record is `{"prompt": text, "chosen": path, "rejected": path}`; what else it holds is not looked at.
"""

from typing import Any

from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.record_files import RecordSource
from unigen.data.records import Record
from unigen.data.sample import RawSample


class PreferenceSource(RecordSource):
    """The preferences of one or more local files; a sample's images are the chosen and the rejected one."""

    bad_cause = "bad_preference"

    def decode(self, record: Record, draws: Draws) -> RawSample:
        found = self._find(record)
        prompt, chosen, rejected = (_text(found.fields, key) for key in ("prompt", "chosen", "rejected"))
        if chosen == rejected:
            raise SampleRefused("bad_preference", f"chosen and rejected are one image, {chosen}")
        return RawSample(record.key, "t2i", images=(found.image(chosen), found.image(rejected)), text=prompt)


def _text(fields: dict[str, Any], key: str) -> str:
    if key not in fields:
        raise SampleRefused("missing_key", f"it has no `{key}`")
    value = fields[key]
    if not isinstance(value, str) or not value.strip():
        raise SampleRefused("bad_preference", f"its {key} is {str(value)[:80]!r}, not a text")
    return value.strip()
