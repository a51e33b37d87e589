# SPDX-License-Identifier: Apache-2.0
"""Images with captions from a folder or from shards: the same pairs in the same order, and no silent gaps."""

import io
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from unigen.data.json_files import write_lines
from unigen.errors import EvaluationError
from unigen.evaluation.alignment.pairs import find_pairs, pairs_hash

CAPTIONS = [f"a picture  of\n{color}" for color in ("red", "green", "blue", "white")]
WORDS = [" ".join(caption.split()) for caption in CAPTIONS]


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "folder"
    place.mkdir()
    for number, caption in enumerate(CAPTIONS):
        (place / f"{number}.png").write_bytes(png(number))
        (place / f"{number}.txt").write_text(caption)
    return place


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    place = tmp_path / "shards"
    place.mkdir()
    for shard in range(2):
        with tarfile.open(place / f"train-{shard}.tar", "w") as tar:
            for number in (2 * shard, 2 * shard + 1):
                for name, content in ((f"{number}.png", png(number)), (f"{number}.txt", CAPTIONS[number].encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return place


@pytest.fixture
def files(folder: Path) -> list[Path]:
    """Files of the same captions beside the images."""
    places = [folder / name for name in ("notes.jsonl", "notes.tsv", "notes.parquet")]
    lines = [{"image": f"{number}.png", "caption": caption} for number, caption in enumerate(CAPTIONS)]
    write_lines(lines, places[0])
    places[1].write_text("".join(f"{number}.png\t{words}\n" for number, words in enumerate(WORDS)))
    images = [png(number) for number in range(4)]
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "caption": CAPTIONS}), places[2])
    return places


def test_pairs_are_the_same_wherever_they_are_kept(folder: Path, shards: Path, files: list[Path]) -> None:
    places = [folder, shards, shards / "train-{0..1}.tar", *files]
    found = [find_pairs(place, 10) for place in places]
    assert [[pair.caption for pair in pairs] for pairs in found] == [WORDS] * 6
    assert [[pair.read_image() for pair in pairs] for pairs in found] == [[png(number) for number in range(4)]] * 6
    assert len({pairs_hash(pairs) for pairs in found}) == 1


def test_a_file_with_a_line_that_is_no_pair_is_named(files: list[Path]) -> None:
    with files[0].open("a") as file:
        file.write('{"image": "0.png"}\n')
    with pytest.raises(EvaluationError, match=r"notes\.jsonl:5: missing key .*take it away"):
        find_pairs(files[0], 10)


def test_no_more_pairs_are_taken_than_asked_for(folder: Path, shards: Path) -> None:
    for place in (folder, shards):
        assert [pair.caption for pair in find_pairs(place, 3)] == WORDS[:3]
    assert pairs_hash(find_pairs(folder, 3)) != pairs_hash(find_pairs(folder, 4))


def test_an_image_without_a_caption_and_an_empty_place_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "1.txt").unlink()
    with pytest.raises(EvaluationError, match=r"1\.png: missing key .*take it away"):
        find_pairs(folder, 10)
    (folder / "1.txt").write_text(" \n")
    with pytest.raises(EvaluationError, match="empty caption"):
        find_pairs(folder, 10)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EvaluationError, match="holds no images with captions"):
        find_pairs(tmp_path / "nothing", 10)


def test_a_shard_that_breaks_off_is_no_shorter_set(shards: Path) -> None:
    whole = (shards / "train-1.tar").read_bytes()
    (shards / "train-1.tar").write_bytes(whole[:700])
    with pytest.raises(EvaluationError, match=r"train-1\.tar"):
        find_pairs(shards, 10)
