# SPDX-License-Identifier: Apache-2.0
"""`unigen sample --best-of` through the command line, with a tiny random model."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.world import command, quiet_environment
from unigen.cli.main import main

PROMPTS = ["a photo of two circles", "a photo of a red cross and a blue circle"]


def call(capsys: pytest.CaptureFixture[str], model: Path, output: Path, *arguments: str) -> Any:
    asked = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    given = ["sample", "--model", str(model), "--output", str(output), "--steps", "2", "--device", "cpu", "--json"]
    assert main([*given, *asked, *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("style", ["think", "outcome", "rule", "probability"])
def test_the_best_of_n_are_kept(
    style: str, any_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unigen.rewards.verifier.MAX_NEW_TOKENS", {"think": 8, "outcome": 4, "rule": 4})
    arguments = ["--best-of", "3", "--keep", "2", "--verifier", style]
    found = call(capsys, any_model, tmp_path, *arguments)
    assert (found["selection"], found["verifier"]) == ("3 drawn, best 2 kept", style)
    lines = [json.loads(line) for line in (tmp_path / "ratings.jsonl").read_text().splitlines()]
    assert [(line["item_id"], line["sample"]) for line in lines] == [
        (f"0000{i}", k) for i in range(2) for k in range(3)
    ]
    kept = [line for line in sorted(lines, key=lambda line: (line["item_id"], line["rank"])) if line["is_kept"]]
    assert [line["seed"] for line in kept] == [image["seed"] for image in found["images"]]
    for line, image in zip(kept, found["images"], strict=True):
        with (
            Image.open(image["path"]) as best,
            Image.open(tmp_path / f"candidates/{line['item_id']}/samples/{line['sample']:05d}.png") as candidate,
        ):
            assert best.tobytes() == candidate.tobytes()
            assert best.text["selection"] == "3 drawn, best 2 kept"  # type: ignore[attr-defined]
            assert best.text["prompt"] == line["prompt"]  # type: ignore[attr-defined]
    assert call(capsys, any_model, tmp_path, *arguments) == found, "a second call changes nothing"


def test_candidates_are_the_images_of_the_same_seeds(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(capsys, model, tmp_path / "best", "--best-of", "2", "--verifier", "probability", "--seed", "5")
    call(capsys, model, tmp_path / "all", "--num-images", "2", "--seed", "5")
    for index in range(2):
        for sample in range(2):
            with (
                Image.open(tmp_path / f"all/{index:05d}_{sample:02d}.png") as plain,
                Image.open(tmp_path / f"best/candidates/{index:05d}/samples/{sample:05d}.png") as candidate,
            ):
                assert plain.tobytes() == candidate.tobytes()


def test_what_is_no_longer_kept_is_removed_and_nothing_else(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(capsys, model, tmp_path, "--num-images", "3")
    arguments = ["--best-of", "2", "--verifier", "probability"]
    call(capsys, model, tmp_path, *arguments, "--keep", "2")
    names = ["00000_00", "00000_01", "00000_02", "00001_00", "00001_01", "00001_02", "contact_sheet"]
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == names
    found = call(capsys, model, tmp_path, *arguments)
    left = {path.stem for path in tmp_path.glob("*.png")}
    assert left == set(names) - {"00000_01", "00001_01"}, (
        "those that were drawn without a choice are not ours to remove"
    )
    assert {Path(one["path"]).stem for one in found["images"]} == {"00000_00", "00001_00"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--keep", "2"], "--keep 2 needs --best-of"),
        (["--verifier", "rule"], "--verifier rule needs --best-of"),
        (["--best-of", "2", "--keep", "3"], "2 drawn, best 3 kept cannot be"),
        (["--best-of", "2", "--num-images", "3"], "--num-images 3 and --best-of exclude each other"),
        (["--best-of", "2", "--verifier", "breakdown"], "breakdown"),
        (["--best-of", "2", "--verifier", "rule", "--prompt", "dusk over hills"], "rate with think or outcome"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str], complaint: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["sample", "--model", str(model), "--output", str(tmp_path), "--steps", "1", "--device", "cpu"]
    assert main([*given, "--prompt", "a photo of a cross", *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("unigen: error: ")
    assert complaint in error


def test_a_run_killed_in_the_middle_loses_nothing_and_doubles_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--best-of", "3", "--verifier", "probability", "--batch-size", "1"]
    asked = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    where = ["--model", str(model), "--output", str(tmp_path / "killed"), "--steps", "2", "--device", "cpu"]
    process = subprocess.Popen(command("sample", *where, *asked, *arguments), env=quiet_environment())
    try:
        while process.poll() is None and not list((tmp_path / "killed").glob("candidates/00000/samples/*.png")):
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    found = call(capsys, model, tmp_path / "killed", *arguments)
    whole = call(capsys, model, tmp_path / "whole", *arguments)
    assert [image["seed"] for image in found["images"]] == [image["seed"] for image in whole["images"]]
    told = [(tmp_path / name / "ratings.jsonl").read_text().splitlines() for name in ("killed", "whole")]
    keys = [[(line["item_id"], line["sample"]) for line in map(json.loads, lines)] for lines in told]
    assert keys[0] == keys[1] == [(f"0000{index}", sample) for index in range(2) for sample in range(3)]


def test_a_folder_of_another_run_is_not_added_to(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--best-of", "2", "--verifier", "probability"]
    call(capsys, model, tmp_path, *arguments)
    given = ["sample", "--model", str(model), "--output", str(tmp_path), "--steps", "2", "--device", "cpu"]
    assert main([*given, "--prompt", "a cross", *arguments]) == 2
    assert "another run: prompts was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("sample", "How many of the N drawn are kept. [1; unigen evaluate, which scores them, keeps 4]"),
        ("evaluate", "How many of the N drawn are kept. [4, also with --best-of 5; unigen sample keeps 1]"),
    ],
)
def test_help_says_in_plain_words_how_many_are_kept(verb: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "N drawn, best K kept" in words
    assert said in words
