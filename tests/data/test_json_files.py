# SPDX-License-Identifier: Apache-2.0
"""Lines of JSON come back as they were written, whatever is in their strings."""

import json
from pathlib import Path

import pytest

from unigen.data.json_files import numbered_lines, read_json, write_json, write_lines
from unigen.errors import EvaluationError

ODD = "a dog\u2028beside\u0085a cat\nand \ud83d"
"""What `str.splitlines` would cut at, and half of a pair of surrogates, which is no UTF-8."""


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    lines = [{"caption": ODD}, {"caption": "grüner Kreis"}]
    write_lines(lines, tmp_path / "new" / "a.jsonl")
    text = (tmp_path / "new" / "a.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for _, line in numbered_lines(text)] == lines
    assert text.isascii()


def test_lines_of_other_programs_are_cut_at_their_ends_alone() -> None:
    text = (
        json.dumps({"a": "b\u2028c"}, ensure_ascii=False) + "\n\n" + json.dumps({"a": "d\u0085e"}, ensure_ascii=False)
    )
    assert [(number, json.loads(line)["a"]) for number, line in numbered_lines(text)] == [
        (1, "b\u2028c"),
        (3, "d\u0085e"),
    ]


def test_a_json_file_that_is_no_object_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    assert read_json(file) is None
    write_json({"a": 1}, file)
    assert read_json(file) == {"a": 1}
    for content, complaint in (("[1]", "holds a list"), ("{", "is not JSON")):
        file.write_text(content)
        with pytest.raises(EvaluationError, match=rf"a\.json {complaint}"):
            read_json(file)
