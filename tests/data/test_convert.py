# SPDX-License-Identifier: Apache-2.0
"""Shards made of images that lie around, read back by the reader that training uses."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from tests.data.archives import png
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.convert import convert_to_shards
from unigen.data.draws import Draws
from unigen.data.records import Part
from unigen.data.sources import open_source
from unigen.errors import DataError


def read_back(output: Path) -> list[tuple[bytes, str]]:
    """Pixels and caption of every sample."""
    source = open_source("set", SourceConfig("t2i", "webdataset", [str(output)]), DataConfig(), seed=0)
    entries: list[Any] = [entry for shard in range(len(source.shards)) for entry in source.read(shard, Part(), 0)]
    samples = [source.decode(entry, Draws(0, entry.key, 0)) for entry in entries]
    assert len({sample.key for sample in samples}) == len(samples) == source.num_samples()
    return [(sample.images[0].tobytes(), sample.text) for sample in samples]


def pixels(content: bytes) -> bytes:
    return Image.open(io.BytesIO(content)).convert("RGB").tobytes()


def folder_of(source: Path, count: int) -> Path:
    source.mkdir()
    for number in range(count):
        (source / f"{number}.png").write_bytes(png(number))
        (source / f"{number}.txt").write_text(f"picture {number}\n")
    return source


def test_a_folder_becomes_shards_of_the_asked_size(tmp_path: Path) -> None:
    done: list[int] = []
    conversion = convert_to_shards(
        folder_of(tmp_path / "in", 10), tmp_path / "out", "folder", samples_per_shard=4, progress=done.append
    )
    assert [shard.name for shard in conversion.shards] == ["000000.tar", "000001.tar", "000002.tar"]
    assert json.loads((tmp_path / "out/sizes.json").read_text()) == {"000000.tar": 4, "000001.tar": 4, "000002.tar": 2}
    assert done == [4, 8, 10]
    assert read_back(tmp_path / "out") == [(pixels(png(number)), f"picture {number}") for number in range(10)]
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".tar", ".tar", ".tar"]


def test_bad_files_are_left_out_and_counted(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 6)
    (source / "1.png").write_bytes(b"no image")
    (source / "2.txt").write_text(" ")
    (source / "3.txt").unlink()
    conversion = convert_to_shards(source, tmp_path / "out", "folder")
    assert conversion.faults.counts == {"unreadable_image": 1, "empty_caption": 1, "missing_key": 1}
    assert [caption for _, caption in read_back(tmp_path / "out")] == ["picture 0", "picture 4", "picture 5"]


def test_an_image_folder_is_captioned_by_its_classes(tmp_path: Path) -> None:
    for name in ("golden_retriever", "axe"):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.open(io.BytesIO(png(1))).save(tmp_path / "in" / name / "1.bmp")
    convert_to_shards(tmp_path / "in", tmp_path / "out", "imagefolder")
    captions = ["A photograph of an axe.", "A photograph of a golden retriever."]
    assert read_back(tmp_path / "out") == [(pixels(png(1)), caption) for caption in captions]


def test_a_table_of_paths_and_captions(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 3)
    (source / "table.tsv").write_text("0.png\tzero\tand a tab\nno tab here\n\n9.png\tgone\n2.png\ttwo\n")
    conversion = convert_to_shards(source / "table.tsv", tmp_path / "out", "tsv")
    assert [caption for _, caption in read_back(tmp_path / "out")] == ["zero and a tab", "two"]
    assert conversion.faults.counts == {"missing_key": 1, "missing_image": 1}
    assert conversion.faults.examples["missing_key"][0].place == f"{source / 'table.tsv'}:2"


def test_lines_of_json_with_paths_and_captions(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 3)
    lines = [{"image": "0.png", "caption": "zero"}, {"image": "1.png"}, {"caption": "no image"}, ["a list"]]
    lines += [{"image": "9.png", "caption": "gone"}, {"image": "2.png", "caption": "two"}]
    (source / "notes.jsonl").write_text("{broken\n\n" + "".join(json.dumps(line) + "\n" for line in lines))
    conversion = convert_to_shards(source / "notes.jsonl", tmp_path / "out", "jsonl")
    assert [caption for _, caption in read_back(tmp_path / "out")] == ["zero", "two"]
    assert conversion.faults.counts == {"not_json": 2, "missing_key": 1, "missing_image": 2}
    assert conversion.faults.examples["not_json"][0].place == f"{source / 'notes.jsonl'}:1"


@pytest.mark.parametrize("how", ["bytes", "struct", "path"])
def test_a_parquet_with_images_in_it_or_beside_it(tmp_path: Path, how: str) -> None:
    source = folder_of(tmp_path / "in", 3)
    images: list[Any] = [png(number) for number in range(3)]
    if how == "struct":
        images = [{"bytes": image, "path": None} for image in images]
    elif how == "path":
        images = [f"{number}.png" for number in range(3)]
    table = pyarrow.table({"picture": [*images, None], "words": ["zero", "one", "two", "three"]})
    pyarrow.parquet.write_table(table, source / "0.parquet")
    columns = {"image_column": "picture", "caption_column": "words"}
    conversion = convert_to_shards(source, tmp_path / "out", "parquet", **columns)
    assert read_back(tmp_path / "out") == [(pixels(png(n)), word) for n, word in enumerate(("zero", "one", "two"))]
    assert conversion.faults.counts == {"missing_image": 1}
    with pytest.raises(DataError, match=r"has the columns \['picture', 'words'\], not \['image', 'caption'\]"):
        convert_to_shards(source, tmp_path / "other", "parquet")


def test_shards_that_are_there_are_not_overwritten(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 2)
    convert_to_shards(source, tmp_path / "out", "folder")
    with pytest.raises(DataError, match="holds shards already"):
        convert_to_shards(source, tmp_path / "out", "folder")


def test_a_source_without_a_sample_is_an_error_and_leaves_no_shard(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="gave no sample as folder: it holds no image"):
        convert_to_shards(tmp_path / "in", tmp_path / "out", "folder")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupted_conversion_leaves_no_half_shard_under_a_shards_name(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 10)

    def stop(samples: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_to_shards(source, tmp_path / "out", "folder", samples_per_shard=4, progress=stop)
    assert [path.name for path in (tmp_path / "out").glob("*.tar")] == ["000000.tar"]
