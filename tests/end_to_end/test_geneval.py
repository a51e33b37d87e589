# SPDX-License-Identifier: Apache-2.0
"""`unigen evaluate --benchmarks geneval` through the command line: a tiny model, a small detector, a small CLIP."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluation.geneval.judges import SEEN_EVERYWHERE, write_clip, write_detector
from unigen.cli.main import main

ENTRIES = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {"tag": "single_object", "include": [{"class": "cow", "count": 1}], "prompt": "a photo of a cow"},
    {"tag": "colors", "include": [{"class": "bench", "count": 1, "color": "red"}], "prompt": "a photo of a red bench"},
]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_detector(root / "checkpoints" / "small-mask2former")
    write_clip(root / "checkpoints" / "clip-vit-large-patch14")
    return root


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "three.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    return file


def test_the_real_command_draws_judges_and_scores_and_its_images_are_scored_without_a_model(
    model: Path, data_root: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = ["--benchmarks", "geneval", "--prompts", str(prompts), "--num-images", "1", "--data-root", str(data_root)]
    judge += ["geneval.detector=small-mask2former", "--device", "cpu", "--json"]
    command = [sys.executable, "-m", "unigen", "evaluate", "--model", str(model), "--steps", "2"]
    finished = subprocess.run(
        [*command, *judge, "--output", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    scores = json.loads(finished.stdout)["geneval"]
    # The small detector finds one bench in every image.
    assert SEEN_EVERYWHERE == "bench"
    assert scores["tags"]["single_object"] == 0.5
    assert scores["tags"]["colors"] in (0.0, 1.0)
    assert scores["overall"] == sum(scores["tags"].values()) / 2
    assert scores["variant"].startswith("geneval/mask2former-")
    assert scores["self_test"]["device"] == "cpu"
    images = tmp_path / "out" / "geneval" / "images"
    assert sorted(str(path.relative_to(images)) for path in images.rglob("*.png")) == [
        f"{index:05d}/samples/00000.png" for index in range(3)
    ]
    (results,) = (tmp_path / "out" / "geneval").glob("mask2former-*/results.jsonl")
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [list(json.loads(row["details"])) for row in rows] == [["bench"]] * 3
    assert rows[1]["reason"] == "expected cow>=1, found 0"

    # The same images, drawn elsewhere, with one of those results as what this installation must reproduce.
    golden = tmp_path / "golden.jsonl"
    golden.write_text(json.dumps(rows[0]) + "\n")
    again = ["evaluate", "--images", str(images), *judge, "--output", str(tmp_path / "again")]
    assert main([*again, f"geneval.golden={golden}"]) == 0
    second = json.loads(capsys.readouterr().out)["geneval"]
    assert (second["tags"], second["self_test"]["golden_images"]) == (scores["tags"], 1)


def test_missing_files_are_one_line_and_exit_code_2(
    model: Path, data_root: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--model", str(model), "--benchmarks", "geneval", "--prompts", str(prompts)]
    command += ["--data-root", str(data_root), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "checkpoints/mask2former/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
