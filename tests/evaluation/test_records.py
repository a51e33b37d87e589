# SPDX-License-Identifier: Apache-2.0
"""Records survive being interrupted, and a folder is never mixed out of two runs."""

import json
from pathlib import Path

import pytest
from PIL import Image

from unigen.data.manifest import open_run
from unigen.errors import EvaluationError
from unigen.evaluation.items import expand
from unigen.evaluation.records import RecordWriter, read_records, require_complete
from unigen.generation.png import is_whole_image, write_png

ITEMS = expand("geneval_shapes", 3, 1, 0)


def test_records_of_all_ranks_are_read_together(tmp_path: Path) -> None:
    for rank, item in enumerate(ITEMS):
        RecordWriter(tmp_path, rank).append(item, {"correct": rank == 1})
    records = require_complete("geneval_shapes", ITEMS, read_records(tmp_path))
    assert [record["correct"] for record in records] == [False, True, False]
    assert [record["seed"] for record in records] == [item.seed for item in ITEMS]


def test_a_line_cut_off_by_a_crash_does_not_count_and_is_written_over(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, 0)
    writer.append(ITEMS[0], {"correct": True})
    file = tmp_path / "records-0.jsonl"
    with file.open("a") as handle:
        handle.write('{"item_id": "00001/00000", "corr')
    assert list(read_records(tmp_path)) == ["00000/00000"]
    RecordWriter(tmp_path, 0).append(ITEMS[1], {"correct": False})
    assert list(read_records(tmp_path)) == ["00000/00000", "00001/00000"]
    assert [json.loads(line)["correct"] for line in file.read_text().splitlines()] == [True, False]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "records-0.jsonl").write_text("{}\n")
    with pytest.raises(EvaluationError, match=r"records-0\.jsonl, line 1"):
        read_records(tmp_path)


def test_missing_and_surplus_items_are_refused_with_their_number(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, 0)
    for item in ITEMS[:2]:
        writer.append(item, {})
    records = read_records(tmp_path)
    with pytest.raises(EvaluationError, match=r"1 of 3 items are not done \(first 00002/00000\)"):
        require_complete("geneval_shapes", ITEMS, records)
    with pytest.raises(EvaluationError, match="2 records for 1 items"):
        require_complete("geneval_shapes", ITEMS[:1], records)


def test_a_folder_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    identity = {"weights": {"model": "abc"}, "drawing": {"steps": 4}}
    open_run(tmp_path, identity)
    open_run(tmp_path, identity)
    for other in ({**identity, "drawing": {"steps": 5}}, {**identity, "drawing": {}}):
        with pytest.raises(EvaluationError, match=r"drawing\.steps was 4 .* give another --output, or delete"):
            open_run(tmp_path, other)
    manifest = json.loads((tmp_path / "run.json").read_text())
    assert manifest["identity"] == identity
    assert {"git_commit", "versions", "machine", "started"} <= set(manifest)


def test_only_the_first_rank_writes_the_manifest(tmp_path: Path) -> None:
    open_run(tmp_path, {"seed": 0}, writes=False)
    assert not (tmp_path / "run.json").exists()


def test_a_png_is_whole_or_absent_and_says_how_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "images" / "00000.png"
    write_png(Image.new("RGB", (40, 40), "red"), path, {"prompt": "ein grüner Kreis", "seed": 3})
    with Image.open(path) as image:
        assert image.text == {"prompt": "ein grüner Kreis", "seed": "3"}  # type: ignore[attr-defined]
    assert [file.name for file in path.parent.iterdir()] == ["00000.png"]
    assert is_whole_image(path)
    content = path.read_bytes()
    for broken in (content[:-20], content[:60], b"", b"text"):
        path.write_bytes(broken)
        assert not is_whole_image(path)
    assert not is_whole_image(tmp_path / "absent.png")
