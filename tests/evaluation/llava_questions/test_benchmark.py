# SPDX-License-Identifier: Apache-2.0
"""Question files through `unigen evaluate`: the answer file, resuming, and what is missing."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny_unifork import released_unifork
from unigen.cli.main import main


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
    assert evaluate(model, tmp_path / "out", *files[1:]) == 2
    assert "pope.questions=FILE" in capsys.readouterr().err
    assert evaluate(model, tmp_path / "out", *files[:2]) == 2
    assert "pope.truth=PATH" in capsys.readouterr().err
