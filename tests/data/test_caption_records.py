# SPDX-License-Identifier: Apache-2.0
"""Captioned images in files of JSON lines: in folders, with the first files alone, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.archives import png, write_jsonl
from tests.data.test_conversations import outcomes
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.sample import RawSample, Turn
from unigen.data.sources import open_source


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "datasets/images").mkdir(parents=True)
    for number in range(6):
        (tmp_path / f"datasets/images/{number}.png").write_bytes(png(number))
    return tmp_path


def source(root: Path, *paths: str, task: Any = "t2i", **changes: Any) -> Any:
    config = SourceConfig(task, "captions", list(paths), images="images", **changes)
    return open_source("web", config, DataConfig(root=str(root), lanes=2), 0)


def record(number: int, **changes: Any) -> dict[str, Any]:
    return {"image": f"{number}.png", "caption": f"Thing number {number}.", **changes}


def test_a_folder_of_txt_and_jsonl_files_is_read_line_by_line_and_may_stop_after_the_first_files(root: Path) -> None:
    folder = root / "datasets/notes"
    for name, number in (("a.txt", 0), ("b.jsonl", 1), ("c.txt", 2)):
        write_jsonl(folder / name, [record(number)])
    found = outcomes(source(root, "notes"))
    assert {sample.text for sample in found.values() if isinstance(sample, RawSample)} == {
        f"Thing number {number}." for number in range(3)
    }
    assert sorted(outcomes(source(root, "notes", first_files=2))) == ["web/notes/a.txt/0", "web/notes/b.jsonl/0"]


def test_a_caption_is_drawn_from_or_asked_for_and_may_be_the_first_answer_of_a_conversation(root: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "An answer."}]
    write_jsonl(root / "datasets/a.jsonl", [record(0), {"image": "1.png", "conversations": talk}])
    drawn = outcomes(source(root, "a.jsonl"))
    assert [drawn[f"web/a.jsonl/{line}"].text for line in (0, 1)] == ["Thing number 0.", "An answer."]  # type: ignore[union-attr]
    (root / "prompts.json").write_text('["Say it."]')
    read = outcomes(source(root, "a.jsonl", task="mmu", caption_prompts=str(root / "prompts.json")))
    assert read["web/a.jsonl/1"].turns == (Turn("user", "Say it."), Turn("assistant", "An answer."))  # type: ignore[union-attr]
    assert len(read["web/a.jsonl/1"].images) == 1  # type: ignore[union-attr]


def test_what_cannot_be_used_is_refused_by_its_cause(root: Path) -> None:
    lines = [
        json.dumps(record(0, caption="  ")),
        json.dumps(record(1, caption="红色的圆")),
        json.dumps({"image": "2.png"}),
        json.dumps({"caption": "No image."}),
        json.dumps(record(9)),
        "{not json",
        json.dumps(["no object"]),
    ]
    (root / "datasets/bad.jsonl").write_text("\n".join(lines) + "\n")
    found = outcomes(source(root, "bad.jsonl", skip_cjk=True))
    causes = [found[f"web/bad.jsonl/{line}"] for line in range(len(lines))]
    assert causes == [
        "empty_caption",
        "cjk_caption",
        "missing_key",
        "missing_image",
        "missing_image",
        "not_json",
        "not_json",
    ]
    assert isinstance(outcomes(source(root, "bad.jsonl"))["web/bad.jsonl/1"], RawSample), "kept unless asked for"
