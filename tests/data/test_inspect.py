# SPDX-License-Identifier: Apache-2.0
"""The page of rows: what it says is what the loss gets."""

import html
import json
import re
from pathlib import Path

import pytest

from tests.data.archives import captioned, png, write_tar
from tests.world import TinyWorld
from unigen.cli.main import main


def inspect(config: Path, output: Path, *more: str) -> str:
    assert main(["data", "inspect", str(config), "--output", str(output), *more]) == 0
    return output.read_text(encoding="utf-8")


def pieces(page: str) -> list[tuple[str, str]]:
    """(classes, text) of everything that stands in the rows."""
    found = re.findall(r'<span class="piece ([^"]*)" title="[^"]*">(.*?)</span>', page, flags=re.DOTALL)
    return [(classes, html.unescape(text)) for classes, text in found]


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_the_page_is_whole_in_itself_and_shows_all_tasks(tiny_world: TinyWorld, tmp_path: Path, stage: str) -> None:
    page = inspect(tiny_world.config(tmp_path, stage), tmp_path / "pages" / "rows.html", "--num-rows", "9")
    assert "<script" not in page
    assert set(re.findall(r'(?:src|href)="([^"]{5})', page)) == {"data:"}
    assert {"t2i", "mmu", "lm"} <= set(re.findall(r'<h3><span class="badge">(\w+)</span>', page))
    assert "Who sees whom" in page


def test_marked_pieces_are_the_targets_that_the_loss_counts(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = inspect(tiny_world.config(tmp_path, "sft"), tmp_path / "rows.html", "--num-rows", "99", "--json")
    counts = json.loads(capsys.readouterr().out)["targets"]
    shown = pieces(page)
    marked_text = sum(classes == "text target" for classes, _ in shown)
    assert marked_text == counts["mmu"] + counts["lm"]
    masked = [int(re.findall(r"(\d+) masked", text)[0]) for classes, text in shown if classes == "codes target"]
    assert sum(masked) == counts["t2i"]


def test_a_conversation_marks_the_answers_and_not_the_questions(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path, "sft", training={"samples_per_step": {"mmu": 2}})
    shown = pieces(inspect(config, tmp_path / "rows.html"))
    marked = "".join(text for classes, text in shown if "target" in classes)
    others = "".join(text for classes, text in shown if "target" not in classes)
    assert marked.startswith("<|im_start|>assistant↵")
    assert "user↵" not in marked
    assert "assistant↵" not in others
    assert "You are a helpful assistant." in others
    assert "4 × 4 features" in others


def test_both_images_of_a_preference_are_shown(tiny_world: TinyWorld, tmp_path: Path) -> None:
    page = inspect(tiny_world.config(tmp_path, "dpo"), tmp_path / "rows.html")
    for kind in ("chosen", "rejected"):
        assert page.count(f"({kind})") == 8, "a step holds 8 pairs"


def test_bad_records_are_named_and_captions_are_not_markup(tiny_world: TinyWorld, tmp_path: Path) -> None:
    bad = ("<script>broken", {"png": png(1)[:100], "txt": b"half an image"})
    good = captioned(0, 7, "<script>alert(1)</script>")
    write_tar(tmp_path / "shards" / "0.tar", [bad, *good])
    source = {"format": "webdataset", "task": "t2i", "paths": [str(tmp_path / "shards")]}
    config = tiny_world.config(
        tmp_path, data={"lanes": 1, "sources": {"mine": source}}, training={"samples_per_step": {"t2i": 8}}
    )
    page = inspect(config, tmp_path / "rows.html")
    assert "1 of 9 records could not be used" in page
    assert "unreadable image" in page
    assert "&lt;script&gt;broken" in page
    assert "<script" not in page
    assert "<script>alert(1)</script>" in "".join(text for _, text in pieces(page)), "and they are shown as they are"


@pytest.mark.parametrize("stage", ["tokenizer", "vision"])
def test_stages_of_single_images_show_them_with_their_captions(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    page = inspect(tiny_world.config(tmp_path, stage), tmp_path / "images.html", "--num-rows", "3", "--json")
    facts = json.loads(capsys.readouterr().out)
    figures = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="[^"]+"><figcaption>(.*?)<small>', page)
    assert len(figures) == 3
    has_caption = [caption.endswith("<br>") and len(caption) > 10 for caption in figures]
    assert has_caption == [True] * 3
    assert "32 x 32 pixels" in page
    assert facts["samples"]["t2i"] >= 3


def test_no_weights_are_needed(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """Shipped configurations stand in for folders that are not there."""
    model = {"image_tokenizer": "shapes-magvitv2", "vision_tower": "shapes-siglip", "pretrained": None}
    inspect(tiny_world.config(tmp_path, "sft", model=model), tmp_path / "rows.html")
    assert "<svg" in (page := (tmp_path / "rows.html").read_text(encoding="utf-8")) or "data:image" in page
