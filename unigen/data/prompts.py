# SPDX-License-Identifier: Apache-2.0
"""Prompts that a policy draws and is rewarded for: JSON records `{"prompt": text, ...}`, or a .txt of one prompt a line.

What a record holds besides its prompt goes along as the sample's entry: GenEval's conditions, which a detector judges by.
"""

from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.record_files import RecordSource
from unigen.data.records import Record
from unigen.data.sample import RawSample


class PromptSource(RecordSource):
    """The prompts of one or more local files."""

    bad_cause = "bad_prompt"

    def decode(self, record: Record, draws: Draws) -> RawSample:
        line = self._content(record).strip()
        if self._annotation(record).path.suffix == ".txt" and not line.startswith(b"{"):
            return RawSample(record.key, "t2i", text=line.decode(errors="replace"))
        entry = self._find(record).fields
        if "prompt" not in entry:
            raise SampleRefused("missing_key", "it has no `prompt`")
        prompt = entry["prompt"]
        if not isinstance(prompt, str) or not prompt.strip():
            raise SampleRefused("bad_prompt", f"its prompt is {str(prompt)[:80]!r}, not a text")
        return RawSample(record.key, "t2i", text=prompt.strip(), entry=entry)
