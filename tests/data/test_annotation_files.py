# SPDX-License-Identifier: Apache-2.0
"""Meta files: their files, image folders and repetitions; and the errors of wrong ones."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.data.archives import png, question, write_jsonl
from tests.data.test_conversations import outcomes
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.sample import RawSample
from unigen.data.sources import open_source
from unigen.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place, numbers in (("first", range(4)), ("second", range(10, 14))):
        (tmp_path / f"datasets/{place}").mkdir(parents=True)
        for number in numbers:
            (tmp_path / f"datasets/{place}/{number}.png").write_bytes(png(number))
        write_jsonl(tmp_path / f"datasets/{place}.jsonl", [question(number, f"{number}.png") for number in numbers])
    return tmp_path


def source(root: Path, meta: Any) -> Any:
    (root / "datasets/meta.json").write_text(json.dumps(meta, indent=1))
    config = SourceConfig("mmu", "conversations", ["meta.json"])
    return open_source("talk", config, DataConfig(root=str(root), lanes=2), 0)


def test_every_file_of_a_meta_file_is_read_with_its_own_folder_of_images(root: Path) -> None:
    second = {"annotation": str(root / "datasets/second.jsonl"), "root": str(root / "datasets/second")}
    found = outcomes(source(root, {"a": {"annotation": "first.jsonl", "root": "first", "repeat_time": 1}, "b": second}))
    assert len(found) == 8
    assert all(isinstance(sample, RawSample) for sample in found.values()), found


def test_files_are_repeated_under_other_keys_and_a_part_is_their_beginning(root: Path) -> None:
    meta = {
        "twice and a half": {"annotation": "first.jsonl", "root": "first", "repeat_time": 2.5},
        "a quarter": {"annotation": "second.jsonl", "root": "second", "repeat_time": 0.25},
    }
    opened = source(root, meta)
    found = outcomes(opened)
    said = Counter(sample.turns[0].text for sample in found.values() if isinstance(sample, RawSample))
    assert said == {
        **{f"What is {number}?": 3 for number in (0, 1)},
        **{f"What is {number}?": 2 for number in (2, 3)},
        "What is 10?": 1,
    }
    assert opened.num_samples() == len(found) == 11


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"annotation": "first.jsonl", "root": "first", "repeat_time": 0}, "repeat_time of 'a' is 0"),
        ({"annotation": "first.jsonl", "root": 3}, "annotation and root of 'a' must be paths"),
        ({"annotation": "absent.jsonl", "root": "first"}, "there is no file .*absent.jsonl"),
        ({"annotation": "first.jsonl", "root": "first", "repeat_time": 0.1}, "leaves no record"),
    ],
)
def test_a_wrong_entry_is_named(root: Path, entry: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        source(root, {"a": entry})


def test_an_entry_without_its_file_and_a_broken_meta_file_are_no_records(root: Path) -> None:
    with pytest.raises(DataError, match="annotation and root of 'b' must be paths"):
        source(root, {"a": {"annotation": "first.jsonl", "root": "first"}, "b": {"root": "second"}})
    (root / "datasets/broken.json").write_text('{\n "a": {"annotation": "first.jsonl",}\n}\n')
    config = SourceConfig("mmu", "conversations", ["broken.json"])
    with pytest.raises(DataError, match=r"broken.json is neither a meta file nor one record a line: .*line 2"):
        open_source("talk", config, DataConfig(root=str(root)), 0)


def test_a_json_file_of_one_record_a_line_is_no_meta_file(root: Path) -> None:
    lines = (root / "datasets/first.jsonl").read_text()
    (root / "datasets/lines.json").write_text(lines)
    config = SourceConfig("mmu", "conversations", ["lines.json"], images="first")
    assert len(outcomes(open_source("talk", config, DataConfig(root=str(root), lanes=2), 0))) == 4
