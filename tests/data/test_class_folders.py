# SPDX-License-Identifier: Apache-2.0
"""Folders of classes are drawn from and described by sentences about the class; names and templates may be one's own."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.archives import png
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.captions import class_sentence, load_class_templates
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.records import Part
from unigen.data.sample import RawSample
from unigen.data.sources import open_source
from unigen.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder, names in (("n02_tabby_cat", ("b.JPEG", "deep/a.png")), ("n01_red_fox", ("c.png",))):
        for name in names:
            path = tmp_path / f"datasets/classes/{folder}/{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(1))
    (tmp_path / "datasets/classes/n02_tabby_cat/notes.txt").write_text("no image")
    return tmp_path


def source(root: Path, task: Any = "t2i", **changes: Any) -> Any:
    config = SourceConfig(task, "imagefolder", ["classes"], **changes)
    return open_source("net", config, DataConfig(root=str(root)), 0)


def samples(of: Any, visit: int = 0) -> dict[str, RawSample]:
    records = [record for shard in range(len(of.shards)) for record in of.read(shard, Part(), 0)]
    return {record.key: of.decode(record, Draws(0, record.key, visit)) for record in records}


def test_every_image_below_a_class_is_a_sample_of_it_in_sorted_order(root: Path) -> None:
    opened = source(root)
    assert list(opened.shards) == ["classes/n01_red_fox", "classes/n02_tabby_cat"]
    assert opened.num_samples() == 3
    found = samples(opened)
    assert sorted(found) == [
        "net/classes/n01_red_fox/c.png",
        "net/classes/n02_tabby_cat/b.JPEG",
        "net/classes/n02_tabby_cat/deep/a.png",
    ]
    assert "n01 red fox" in found["net/classes/n01_red_fox/c.png"].text
    assert [record.key for record in opened.read(1, Part(1, 2), 0)] == ["net/classes/n02_tabby_cat/deep/a.png"]


def test_every_visit_draws_a_sentence_to_draw_from_or_to_answer(root: Path) -> None:
    key = "net/classes/n01_red_fox/c.png"
    drawn = {samples(source(root), visit)[key].text for visit in range(20)}
    assert len(drawn) > 5
    answers = {samples(source(root, "mmu"), visit)[key].turns[1].text for visit in range(20)}
    assert len(answers) > 5
    assert samples(source(root), 3)[key].text == samples(source(root), 3)[key].text


def test_names_and_templates_may_be_ones_own(root: Path) -> None:
    (root / "templates.json").write_text('["only the {}"]')
    by_folder, by_order = root / "datasets/names.json", root / "datasets/names.txt"
    by_folder.write_text(json.dumps({"n02_tabby_cat": "cat", "n01_red_fox": "fox", "n03": "bird"}))
    by_order.write_text("fox\ncat\n")
    for names in ("names.json", "names.txt"):
        found = samples(source(root, class_names=names, class_templates=str(root / "templates.json")))
        assert [sample.text for sample in found.values()] == ["only the fox", "only the cat", "only the cat"]


def test_a_vowel_takes_its_article() -> None:
    assert class_sentence("a photo of a {}.", "red fox") == "a photo of a red fox."
    assert class_sentence("a photo of a {}.", "old fox") == "a photo of an old fox."
    assert class_sentence("the {} here", "owl") == "the owl here"


def test_wrong_names_templates_and_folders_are_said_before_anything_is_read(root: Path) -> None:
    (root / "datasets/short.txt").write_text("fox\n")
    (root / "datasets/few.json").write_text('{"n01_red_fox": "fox"}')
    (root / "wrong.json").write_text('["no place"]')
    with pytest.raises(ConfigError, match=r"short.txt cannot be used for 2 classes"):
        source(root, class_names="short.txt")
    with pytest.raises(ConfigError, match="no name for the folder 'n02_tabby_cat'"):
        source(root, class_names="few.json")
    with pytest.raises(ConfigError, match=r"'no place' has not one \{\}"):
        source(root, class_templates=str(root / "wrong.json"))
    with pytest.raises(DataError, match="has no folder in it"):
        open_source("net", SourceConfig("t2i", "imagefolder", ["classes/n01_red_fox"]), DataConfig(root=str(root)), 0)
    with pytest.raises(DataError, match="there is no folder"):
        open_source("net", SourceConfig("t2i", "imagefolder", ["absent"]), DataConfig(root=str(root)), 0)


def test_an_image_that_cannot_be_read_is_refused(root: Path) -> None:
    (root / "datasets/classes/n01_red_fox/c.png").write_bytes(b"no png")
    opened = source(root)
    (record,) = opened.read(0, Part(), 0)
    with pytest.raises(SampleRefused) as refused:
        opened.decode(record, Draws(0, record.key, 0))
    assert refused.value.cause == "unreadable_image"


def test_the_packaged_templates_are_all_different() -> None:
    templates = load_class_templates("photo")
    assert len(set(templates)) == len(templates) >= 30
