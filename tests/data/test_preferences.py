# SPDX-License-Identifier: Apache-2.0
"""Preference records: JSON and JSONL, parts of several files, where images lie, and what is refused."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.data.archives import png, write_jsonl
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.records import Part
from unigen.data.sample import RawSample
from unigen.data.sources import open_source


def pair(number: int, chosen: str = "0.png", rejected: str = "1.png") -> dict[str, Any]:
    return {"id": f"p{number}", "prompt": f"a red square {number}", "chosen": chosen, "rejected": rejected, "score": 1}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images in a folder of their own, and other ones beside the files."""
    for folder, first in (("datasets/images", 0), ("datasets/dpo", 10)):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            (tmp_path / folder / f"{number}.png").write_bytes(png(first + number))
    return tmp_path


def source(root: Path, *paths: str, **changes: Any) -> Any:
    config = SourceConfig("t2i", "preferences", list(paths), **changes)
    return open_source("pairs", config, DataConfig(root=str(root), lanes=2), seed=0)


def outcomes(of: Any) -> dict[str, RawSample | str]:
    """By key: the sample, or the cause of its refusal."""
    found: dict[str, RawSample | str] = {}
    for shard in range(len(of.shards)):
        for record in of.read(shard, Part(), 0):
            try:
                found[record.key] = of.decode(record, Draws(0, record.key, 0))
            except SampleRefused as refused:
                found[record.key] = refused.cause
    return found


def test_a_list_and_lines_hold_the_same_pairs(root: Path) -> None:
    records = [pair(number) for number in range(5)]
    write_jsonl(root / "datasets/dpo/pairs.jsonl", records)
    (root / "datasets/dpo/pairs.json").write_text(json.dumps(records, indent=1))
    for name in ("pairs.jsonl", "pairs.json"):
        found = outcomes(source(root, f"dpo/{name}"))
        assert sorted(found) == [f"pairs/dpo/{name}/{number}" for number in range(5)]
        for number in range(5):
            sample = found[f"pairs/dpo/{name}/{number}"]
            assert isinstance(sample, RawSample)
            assert (sample.task, sample.text, len(sample.images)) == ("t2i", f"a red square {number}", 2)


@pytest.mark.parametrize(("images", "first"), [(None, 10), ("images", 0)])
def test_images_lie_beside_the_file_or_in_the_folder_that_is_named(root: Path, images: str | None, first: int) -> None:
    write_jsonl(root / "datasets/dpo/pairs.jsonl", [pair(0)])
    (sample,) = outcomes(source(root, "dpo/pairs.jsonl", images=images)).values()
    assert isinstance(sample, RawSample)
    expected = [Image.open(io.BytesIO(png(first + number))).tobytes() for number in range(2)]
    assert [image.tobytes() for image in sample.images] == expected


def test_counts_and_shares_of_several_files_are_drawn_at_random(root: Path) -> None:
    for name, number in (("a", 40), ("b", 10), ("c", 30)):
        write_jsonl(root / f"datasets/dpo/{name}.jsonl", [pair(index) for index in range(number)])
    opened = source(root, "dpo/a.jsonl", "dpo/b.jsonl", "dpo/c.jsonl", take=["6", "100%", "50%"])
    keys = set(outcomes(opened))
    assert opened.num_samples() == len(keys) == 6 + 10 + 15
    assert [sum(f"/{name}.jsonl/" in key for key in keys) for name in "abc"] == [6, 10, 15]
    assert {int(key.rsplit("/", 1)[1]) for key in keys if "/a.jsonl/" in key} != set(range(6))


def test_what_is_wrong_with_a_record_is_said_by_its_cause(root: Path) -> None:
    (root / "datasets/dpo/bad.png").write_bytes(b"x")
    nameless = pair(0)
    del nameless["rejected"]
    records = {
        "not_json": '{"prompt": "a',
        "bad_preference": ["a", "b"],
        "missing_key": nameless,
        "missing_image": pair(0, rejected="gone.png"),
        "unreadable_image": pair(0, chosen="bad.png"),
    }
    more = [{**pair(0), "prompt": " "}, {**pair(0), "chosen": 3}, pair(0, "0.png", "0.png")]
    write_jsonl(root / "datasets/dpo/pairs.jsonl", [*records.values(), *more])
    causes = [outcome for _, outcome in sorted(outcomes(source(root, "dpo/pairs.jsonl")).items())]
    assert causes == [*records, *["bad_preference"] * 3]
