# SPDX-License-Identifier: Apache-2.0
"""`unigen evaluate` through the command line: a tiny model drawn, asked, scored and picked up again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unigen.cli.main import main

BOTH = ["--benchmarks", "geneval_shapes,vqa_shapes", "--num-images", "2", "--steps", "3", "--device", "cpu"]


def test_the_real_command_scores_a_model(model: Path, world: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unigen", "evaluate", "--model", str(model), "--data", str(world)]
    command += ["--output", str(tmp_path), *BOTH, "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    results = json.loads(finished.stdout)
    assert results == json.loads((tmp_path / "results.json").read_text())
    assert 0 <= results["geneval_shapes"]["overall"] < 0.5 < results["geneval_shapes"]["detector"]
    assert 0 <= results["vqa_shapes"]["accuracy"] < 0.9
    assert 0 < results["tokenizer"]["psnr"] < 20
    assert set(results["manifest"]["model"]["weights"]) == {"model", "image_tokenizer"}
    assert "geneval_shapes: 100%" in finished.stderr


def test_calling_again_keeps_what_is_done(
    any_model: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--model", str(any_model), "--data", str(world), "--output", str(tmp_path), *BOTH]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "overall" in printed
    assert str(tmp_path / "results.json") in printed
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.png") if "samples" in file.parts}
    assert len(before) == 24
    first = json.loads((tmp_path / "results.json").read_text())
    lost = tmp_path / "geneval_shapes" / "images" / "00004" / "samples" / "00001.png"
    content = lost.read_bytes()
    lost.unlink()
    assert main([*arguments, "--batch-size", "5"]) == 0
    assert lost.read_bytes() == content
    assert all(file.stat().st_mtime_ns == at for file, at in before.items() if file != lost)
    again = json.loads((tmp_path / "results.json").read_text())
    for key in ("overall", "tags", "interval", "ceiling"):
        assert again["geneval_shapes"][key] == first["geneval_shapes"][key]
    assert again["vqa_shapes"]["accuracy"] == first["vqa_shapes"]["accuracy"]


def test_a_failed_item_is_named_and_the_exit_code_is_1(
    model: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world / "evaluation", tmp_path / "world" / "evaluation")
    (tmp_path / "world" / "evaluation" / "images" / "00001.png").write_bytes(b"no image")
    arguments = ["evaluate", "--model", str(model), "--data", str(tmp_path / "world"), "--benchmarks", "vqa_shapes"]
    assert main([*arguments, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 1
    assert "images/00001.png" in capsys.readouterr().err


def test_other_settings_in_the_same_folder_are_a_users_mistake(
    model: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--model", str(model), "--data", str(world), "--output", str(tmp_path)]
    arguments += ["--benchmarks", "geneval_shapes", "--num-images", "1", "--device", "cpu"]
    assert main([*arguments, "--steps", "2"]) == 0
    capsys.readouterr()
    assert main([*arguments, "--steps", "3"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "drawing.steps was 2 and is now 3" in error
    assert "give another --output" in error


@pytest.mark.parametrize(
    ("change", "complaint"),
    [(["--benchmarks", "geneval_shape"], "did you mean geneval_shapes?"), (["--data", "nowhere"], "with --data")],
)
def test_mistakes_are_one_line_and_exit_code_2(
    change: list[str], complaint: str, model: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--model", str(model), "--data", str(world), "--benchmarks", "vqa_shapes"]
    assert main([*arguments, "--output", str(tmp_path), "--device", "cpu", *change]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_a_benchmark_without_its_files_is_named_first_and_last_and_the_others_are_scored(
    model: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--model", str(model), "--data", str(world), "--benchmarks", "dpg,vqa_shapes"]
    code = main([*arguments, "--output", str(tmp_path), "--device", "cpu", "dpg.prompts=nowhere"])
    said = capsys.readouterr()
    assert code == 2
    complaints = [line for line in said.err.splitlines() if line.startswith("unigen: error: ")]
    assert len(complaints) == 2
    assert all("nothing at nowhere" in line and "dpg" in line for line in complaints)
    assert said.err.index(complaints[0]) < said.err.index("vqa_shapes: "), "it is said before anything is done"
    results = json.loads((tmp_path / "results.json").read_text())
    assert "accuracy" in results["vqa_shapes"]
    assert list(results["failed"]) == ["dpg"]
