# SPDX-License-Identifier: Apache-2.0
"""Text in parquet: row groups, windows, and files that are damaged or of another kind."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.draws import Draws
from unigen.data.faults import Fault, SampleRefused
from unigen.data.records import Part, Record
from unigen.data.sources import open_source
from unigen.errors import DataError


def write(path: Path, texts: list[Any], rows: int, column: str = "content") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"url": ["u"] * len(texts), column: texts})
    pyarrow.parquet.write_table(table, path, row_group_size=rows)


def source(root: Path, lanes: int = 2, **changes: Any) -> Any:
    config = SourceConfig("lm", "parquet", ["text"], **changes)
    return open_source("text", config, DataConfig(root=str(root), lanes=lanes), seed=0)


def texts(of: Any, shard: int, part: Part = Part(), skip: int = 0) -> list[str]:  # noqa: B008  it is frozen
    return [of.decode(entry, Draws(0, entry.key, 0)).text for entry in of.read(shard, part, skip)]


def test_few_files_are_dealt_out_by_row_group_and_many_by_file(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"datasets/text/{number}.parquet", [f"{number}-{row}" for row in range(10)], rows=4)
    by_group, by_file = source(tmp_path, lanes=2), source(tmp_path, lanes=0)
    assert (len(by_group.shards), len(by_file.shards)) == (9, 3)
    assert texts(by_group, 4) == ["1-4", "1-5", "1-6", "1-7"]
    assert texts(by_file, 1) == [f"1-{row}" for row in range(10)]
    keys = [
        [entry.key for shard in range(len(of.shards)) for entry in of.read(shard, Part(), 0)]
        for of in (by_group, by_file)
    ]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == by_file.num_samples() == 30


@pytest.mark.parametrize("skip", [0, 1, 299, 300, 301, 700, 999, 1000, 1001])
def test_skipping_gives_what_comes_after(tmp_path: Path, skip: int) -> None:
    write(tmp_path / "datasets/text/0.parquet", [f"t{row}" for row in range(1000)], rows=300)
    opened = source(tmp_path, lanes=0)
    assert texts(opened, 0, Part(), skip) == [f"t{row}" for row in range(skip, 1000)]
    assert texts(opened, 0, Part(1, 3), skip // 3) == [f"t{row}" for row in range(1 + skip // 3 * 3, 1000, 3)]


def test_row_groups_that_are_skipped_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "datasets/text/0.parquet", [f"t{row}" for row in range(1000)], rows=100)
    read: list[int] = []
    original = pyarrow.parquet.ParquetFile.iter_batches

    def counting(file: Any, *arguments: Any, row_groups: list[int], **options: Any) -> Any:
        read.extend(row_groups)
        return original(file, *arguments, row_groups=row_groups, **options)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", counting)
    next(source(tmp_path, lanes=0).read(0, Part(), 750))
    assert read == [7]


def test_a_long_text_gives_windows_that_differ_from_visit_to_visit(tmp_path: Path) -> None:
    long = "".join(chr(0x4E00 + number) for number in range(20_000))
    write(tmp_path / "datasets/text/0.parquet", [long, "short"], rows=2)
    opened = source(tmp_path)
    record, _ = opened.read(0, Part(), 0)
    windows = [opened.decode(record, Draws(0, record.key, visit)).text for visit in range(5)]
    assert all(len(window) == 8000 and window in long for window in windows)
    assert len(set(windows)) == 5
    assert windows[2] == opened.decode(record, Draws(0, record.key, 2)).text


@pytest.mark.parametrize("text", [None, "", " \n "])
def test_a_row_without_text_is_refused(tmp_path: Path, text: str | None) -> None:
    write(tmp_path / "datasets/text/0.parquet", ["a", text], rows=2)
    opened = source(tmp_path)
    record = list(opened.read(0, Part(), 0))[1]
    assert isinstance(record, Record)
    with pytest.raises(SampleRefused):
        opened.decode(record, Draws(0, record.key, 0))


@pytest.mark.parametrize("lanes", [0, 2])
def test_a_damaged_file_is_one_fault_that_names_it(tmp_path: Path, lanes: int) -> None:
    for number in range(3):
        write(tmp_path / f"datasets/text/{number}.parquet", ["a", "b"], rows=2)
    bad, other = (tmp_path / f"datasets/text/{number}.parquet" for number in (1, 2))
    bad.write_bytes(bad.read_bytes()[:-20])
    write(other, ["a"], rows=1, column="words")
    opened = source(tmp_path, lanes=lanes)
    faults = [entry for shard in range(3) for entry in opened.read(shard, Part(), 0) if isinstance(entry, Fault)]
    assert [(fault.cause, fault.place) for fault in faults] == [
        ("unreadable_shard", str(bad)),
        ("missing_key", str(other)),
    ]


def test_text_under_another_column_is_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path / "datasets/text/0.parquet", ["a"], rows=1, column="text")
    with pytest.raises(DataError, match=r"has the columns \['url', 'text'\]; running text is read from 'content'"):
        source(tmp_path)
