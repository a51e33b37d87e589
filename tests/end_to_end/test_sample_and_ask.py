# SPDX-License-Identifier: Apache-2.0
"""`unigen sample` and `unigen ask` through the command line."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import unigen
from unigen.cli.main import main

CPU = ["--device", "cpu"]


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    assert main([*map(str, arguments), *CPU, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "red.png"
    Image.new("RGB", (50, 40), "red").save(path)
    return path


def test_the_real_command_draws_and_says_where(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unigen", "sample", "--model", str(model), "--prompt", "a red circle"]
    command += ["--num-images", "2", "--steps", "3", "--output", str(tmp_path), *CPU, "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    printed = json.loads(finished.stdout)
    assert [Path(image["path"]).name for image in printed["images"]] == ["00000_00.png", "00000_01.png"]
    assert "drawing" in finished.stderr, "the progress bar belongs on stderr"
    for image in printed["images"]:
        with Image.open(image["path"]) as file:
            assert file.size == (32, 32)
    assert (tmp_path / "contact_sheet.png").is_file()


def test_every_png_says_how_it_was_made(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = call(
        capsys, "sample", "--model", model, "--prompt", "a cross", "--seed", "3", "--steps", "2", "--guidance-scale",
        "0.5", "--temperature-schedule", "linear", "--output", tmp_path,
    )  # fmt: skip
    with Image.open(tmp_path / "00000_00.png") as image:
        text = image.text  # type: ignore[attr-defined]
    assert text["prompt"] == "a cross"
    assert text["model"] == str(model)
    assert (text["base_seed"], text["seed"]) == ("3", str(printed["images"][0]["seed"]))
    assert (text["steps"], text["guidance_scale"], text["temperature_schedule"]) == ("2", "0.5", "linear")


@pytest.mark.parametrize("guidance_scale", ["0", "0.5", "1", "6"])
def test_every_guidance_scale_draws(
    guidance_scale: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sample", "--model", model, "--prompt", "a cross", "--steps", "2", "--output", tmp_path]
    assert len(call(capsys, *arguments, "--guidance-scale", guidance_scale)["images"]) == 1


def test_the_command_draws_what_the_python_api_draws_in_any_batch(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cross\n\na photo of a blue circle above a red square\n")
    for batch_size in ("1", "3"):
        arguments = ["sample", "--model", model, "--prompts-file", prompts, "--num-images", "2", "--steps", "3"]
        call(capsys, *arguments, "--output", tmp_path / batch_size, "--batch-size", batch_size)
    wanted = ["a cross", "a photo of a blue circle above a red square"]
    images = unigen.load(model, device="cpu").draw(wanted, num_images=2, steps=3)
    for name, image in zip(["00000_00", "00000_01", "00001_00", "00001_01"], images, strict=True):
        for batch_size in ("1", "3"):
            with Image.open(tmp_path / batch_size / f"{name}.png") as file:
                assert file.tobytes() == image.tobytes()


def test_questions_are_turns_of_one_chat_unless_independent(
    any_model: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["ask", "--model", any_model, "--image", picture, "--max-new-tokens", "8"]
    questions = ["--question", "what is it?", "--question", "and its color?"]
    chat = call(capsys, *arguments, *questions)["turns"]
    alone = call(capsys, *arguments, *questions, "--independent")["turns"]
    assert [turn["question"] for turn in chat] == [turn["question"] for turn in alone] == questions[1::2]
    assert chat[0] == alone[0]
    assert chat[1] != alone[1], "the second turn must see the first"
    assert call(capsys, *arguments, *questions[2:])["turns"] == alone[1:]


def test_a_chat_goes_on_with_what_is_typed(
    any_model: Path, picture: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["ask", "--model", any_model, "--image", picture, "--max-new-tokens", "8"]
    given = call(capsys, *arguments, "--question", "what is it?", "--question", "and its color?")["turns"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("and its color?\n\n"))
    assert call(capsys, *arguments, "--question", "what is it?", "--chat")["turns"] == given


def test_several_images_are_all_seen(
    any_model: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "noise.png"
    Image.effect_noise((32, 32), 90).convert("RGB").save(other)
    question = ["--question", "what?", "--max-new-tokens", "8"]
    one = call(capsys, "ask", "--model", any_model, "--image", picture, *question)
    two = call(capsys, "ask", "--model", any_model, "--image", picture, "--image", other, *question)
    assert one["turns"] != two["turns"]
    assert two["images"] == [str(picture), str(other)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["sample", "--model", "{model}", "--output", "{tmp}"], "--prompt TEXT or --prompts-file FILE"),
        (["sample", "--model", "{tmp}", "--prompt", "x", "--output", "{tmp}"], "no model"),
        (["sample", "--model", "{model}", "--prompts-file", "{tmp}/none.txt", "--output", "{tmp}"], "none.txt"),
        (["sample", "--model", "{model}", "--prompt", "x", "--output", "{tmp}", "--device", "warp"], "--device warp"),
        (["ask", "--model", "{model}", "--image", "{image}"], "--question TEXT"),
        (["ask", "--model", "{model}", "--question", "what?"], "at least one image"),
        (["ask", "--model", "{model}", "--question", "what?", "--image", "{tmp}/none.png"], "none.png"),
        (["ask", "--model", "{model}", "--question", "what?", "--image", "{model}/README.md"], "README.md"),
        (["ask", "--model", "{model}", "--question", "a", "--chat", "--independent"], "exclude each other"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str], complaint: str, model: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"model": model, "tmp": tmp_path, "image": picture}
    assert main([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("unigen: error: ")
    assert complaint in error
    assert error.count("\n") == 1
