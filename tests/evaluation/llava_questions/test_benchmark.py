# SPDX-License-Identifier: Apache-2.0
"""Question files through `unigen evaluate`: the answer file, resuming, and what is missing."""

import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tiny_unifork import released_unifork
from unigen.cli.main import main
from unigen.evaluation.items import Item, expand
from unigen.evaluation.llava_questions import benchmark


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_unifork(tmp_path_factory.mktemp("model") / "unifork")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """POPE in small, and the options that name it."""
    (tmp_path / "images").mkdir()
    labels = tmp_path / "labels"
    labels.mkdir()
    questions = []
    for number in range(3):
        Image.new("RGB", (20, 12), (60 * number, 0, 0)).save(tmp_path / f"images/{number}.png")
        image = f"{number}.png"
        questions.append({"question_id": number, "image": image, "text": "Is it red?", "category": "random"})
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in questions))
    (labels / "coco_pope_random.json").write_text('{"label": "yes"}\n{"label": "no"}\n{"label": "yes"}\n')
    return [f"pope.questions={tmp_path / 'q.jsonl'}", f"pope.images={tmp_path / 'images'}", f"pope.truth={labels}"]


def evaluate(model: Path, output: Path, *words: str) -> int:
    common = ["evaluate", "--model", str(model), "--benchmarks", "pope", "--output", str(output), "--device", "cpu"]
    return main([*common, *words])


def test_a_question_file_is_answered_once_and_scored(
    model: Path, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(model, tmp_path / "out", *files, "--json") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["pope"]
    assert found["num_questions"] == 3
    assert set(found["metrics"]) >= {"random accuracy", "f1", "precision", "recall", "yes_ratio"}
    lines = [json.loads(line) for line in (tmp_path / "out/pope/answers.jsonl").read_text().splitlines()]
    assert [line["question_id"] for line in lines] == [0, 1, 2]
    before = (tmp_path / "out/pope/records-0.jsonl").read_text()
    assert evaluate(model, tmp_path / "out", *files) == 0
    assert (tmp_path / "out/pope/records-0.jsonl").read_text() == before


def test_a_missing_image_fails_by_its_question_and_the_others_are_kept(
    model: Path, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "images" / "1.png"
    content = image.read_bytes()
    image.unlink()
    assert evaluate(model, tmp_path / "out", *files) == 1
    assert "question 1: 1.png" in capsys.readouterr().err
    image.write_bytes(content)
    assert evaluate(model, tmp_path / "out", *files) == 0
    assert len((tmp_path / "out/pope/records-0.jsonl").read_text().splitlines()) == 3


def test_files_that_are_not_there_are_named_with_their_key(
    model: Path, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for missing, field in enumerate(("questions", "images", "truth")):
        assert evaluate(model, tmp_path / "out", *(one for place, one in enumerate(files) if place != missing)) == 2
        assert f"pope.{field}=PATH" in capsys.readouterr().err


@pytest.mark.parametrize("root", ["", "data"], ids=["here", "data root"])
def test_the_protocols_folder_is_found_where_the_command_runs_and_below_the_data_root(
    root: str, model: Path, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / root / "playground" / "data" / "eval" / "pope"
    own.mkdir(parents=True)
    for name, there in {"q.jsonl": "llava_pope_test.jsonl", "images": "val2014", "labels": "coco"}.items():
        (tmp_path / name).rename(own / there)
    monkeypatch.chdir(tmp_path)
    assert evaluate(model, tmp_path / "out", "--data-root", "data") == 0


def test_images_are_read_when_their_turn_comes_and_neighbours_share_theirs(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    names = ["0.png", "0.png", "1.png", "3.png", "gone.png", "2.png"]
    items = expand("pope", len(names), 1, 0)
    pending = [
        (item, {"question_id": number, "image": name, "text": "?"})
        for number, (item, name) in enumerate(zip(items, names, strict=True))
    ]
    asked: deque[tuple[Item, Mapping[str, Any]]] = deque()
    failures: list[str] = []
    requests = benchmark._requests(pending, tmp_path, asked, failures)
    first, second = next(requests), next(requests)
    assert first.images[0] is second.images[0]
    (tmp_path / "2.png").unlink()  # not looked at yet
    assert [request.images[0].getpixel((0, 0)) for request in requests] == [(1, 0, 0)]
    assert [question["question_id"] for _, question in asked] == [0, 1, 2]
    assert [line.split(":")[0] for line in failures] == ["question 3", "question 4", "question 5"]
