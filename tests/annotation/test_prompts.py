# SPDX-License-Identifier: Apache-2.0
"""Prompts come from JSON lines or lines of text, and a bad one is named."""

import json
from pathlib import Path

import pytest

from unigen.annotation.prompts import read_entries, read_prompts
from unigen.errors import DataError


def test_prompts_of_json_lines_keep_their_ids_and_all_that_the_entry_says(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"id": "a-1", "prompt": " a dog ", "tag": "single"}\n\n{"id": 7, "prompt": "a cat"}\n')
    prompts = read_prompts(file)
    assert [(prompt.id, prompt.text) for prompt in prompts] == [("a-1", "a dog"), ("7", "a cat")]
    assert prompts[0].fields["tag"] == "single"
    assert [prompt.id for prompt in read_prompts(file, 1)] == ["a-1"]


def test_an_entry_ends_where_its_line_ends_and_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    texts = ["a dog\u2028beside a cat", "a\u0085b"]
    entries = [{"id": index, "prompt": prompt} for index, prompt in enumerate(texts)]
    file.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")
    assert [prompt.text for prompt in read_prompts(file)] == texts
    assert [entry["prompt"] for entry in read_entries(file, {"prompt": str})] == texts


def test_prompts_of_text_are_numbered(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a dog\n\n  a cat\n")
    assert [(prompt.id, prompt.text) for prompt in read_prompts(file)] == [("00000", "a dog"), ("00001", "a cat")]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "holds no prompt"),
        ("no json\n", "line 1 is not JSON"),
        ('{"id": "a"}\n', "line 1 has no 'prompt' that is a str"),
        ("[1]\n", "line 1 has no 'prompt'"),
        ('{"id": "a", "prompt": 3}\n', "line 1 has no 'prompt' that is a str"),
        ('{"id": "a", "prompt": " "}\n', "the prompt of a is empty"),
        ('{"prompt": "a dog"}\n', "id None cannot be part of a file name"),
        ('{"id": "../a", "prompt": "a dog"}\n', "id '../a' cannot be part of a file name"),
        ('{"id": "a", "prompt": "a dog"}\n{"id": "a", "prompt": "a cat"}\n', "the id a is there twice"),
    ],
)
def test_a_bad_prompt_file_is_named_with_its_line(content: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match=r"prompts\.jsonl") as error:
        read_prompts(file)
    assert complaint in str(error.value)


def test_an_absent_file_and_a_value_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_prompts(tmp_path / "absent.jsonl")
    (tmp_path / "a.jsonl").write_text(json.dumps({"score": "high"}) + "\n")
    with pytest.raises(DataError, match="'score' that is a int or float"):
        read_entries(tmp_path / "a.jsonl", {"score": (int, float)})
