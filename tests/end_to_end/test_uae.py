# SPDX-License-Identifier: Apache-2.0
"""UAE through the command line: a released model and its conversions draw, answer and reconstruct alike."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny_unigen
from tests.tiny_uae import RESOLUTION, released_uae
from unigen.cli.main import main


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_uae(tmp_path_factory.mktemp("uae") / "release").file


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in {"first.png": (20, 20), "second.jpg": (33, 12)}.items():
        values = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / name)
    return folder


def convert(source: Path, output: Path, *words: str) -> Path:
    assert main(["convert", "model", str(source), "--to", "ours", "--output", str(output), *words]) == 0
    return output


def test_a_release_and_its_conversions_draw_and_answer_alike(
    released: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(released, tmp_path / "parts")
    convert(released, tmp_path / "whole", "--merge")
    found = []
    for number, model in enumerate((released, tmp_path / "parts" / "dit_lora", tmp_path / "whole")):
        words = ["--model", str(model), "--device", "cpu", "--json"]
        drawing = ["--prompt", "a red circle", "--num-images", "2", "--steps", "3", "--guidance-scale", "3"]
        capsys.readouterr()
        assert main(["sample", *words, *drawing, "--output", str(tmp_path / str(number))]) == 0
        images = json.loads(capsys.readouterr().out)["images"]
        asking = ["--image", str(pictures / "first.png"), "--caption", "--question", "why?", "--max-new-tokens", "5"]
        assert main(["ask", *words, *asking, "--temperature", "0"]) == 0
        turns = json.loads(capsys.readouterr().out)["turns"]
        found.append(([np.asarray(Image.open(one["path"]), dtype=int) for one in images], turns))
    for images, turns in found:
        assert np.abs(np.array(images) - found[0][0]).max() <= 1
        assert turns == found[0][1]
    assert not np.array_equal(*found[0][0])
    assert found[0][1][0]["question"].startswith("Describe this picture")
    assert found[0][1][1]["question"] == "why?"


def test_images_are_captioned_and_drawn_again_by_their_names(
    released: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--model",
        str(released),
        "--device",
        "cpu",
        "--images",
        str(pictures),
        "--steps",
        "2",
        "--max-new-tokens",
        "6",
    ]
    assert main(["reconstruct", *words, "--output", str(tmp_path / "all"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    lines = [json.loads(line) for line in (tmp_path / "all" / "captions.jsonl").read_text().splitlines()]
    assert report["images"] == lines
    assert [Path(line["reconstruction"]).name for line in lines] == ["first.png", "second.png"]
    for line in lines:
        image = Image.open(line["reconstruction"])
        assert image.size == (RESOLUTION, RESOLUTION)
        assert image.text["prompt"] == line["caption"]
    assert Path(report["contact_sheet"]).is_file()
    one = ["--model", str(released), "--device", "cpu", "--image", str(pictures / "second.jpg"), "--steps", "2"]
    assert main(["reconstruct", *one, "--max-new-tokens", "6", "--output", str(tmp_path / "one")]) == 0
    assert lines[1]["caption"] in capsys.readouterr().out, "the caption of an image does not depend on the others"


def test_a_family_that_draws_codes_reconstructs_by_words_too(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_unigen(tmp_path / "model")
    words = ["--model", str(model), "--device", "cpu", "--image", str(pictures / "first.png"), "--question", "what?"]
    assert (
        main(["reconstruct", *words, "--steps", "2", "--max-new-tokens", "4", "--output", str(tmp_path / "out")]) == 0
    )
    assert Image.open(tmp_path / "out" / "first.png").size == (32, 32)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["reconstruct", "--output", "out"], "give --image FILE or --images FOLDER"),
        (["reconstruct", "--output", "out", "--images", "{empty}"], "no images in"),
        (["reconstruct", "--output", "out", "--image", "{picture}", "--image", "{picture}"], "are called first"),
        (["sample", "--output", "out", "--prompt", "two", "--resolution", "20"], "multiples of 8 up to 64"),
        (["sample", "--output", "out", "--prompt", "two", "--top-p", "0.5"], "UAE does not know the setting 'top_p'"),
        (["ask"], "--question TEXT, --caption, or --chat"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(
    command: list[str],
    complaint: str,
    released: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    verb, *rest = (word.format(empty=tmp_path / "empty", picture=pictures / "first.png") for word in command)
    assert main([verb, "--model", str(released), "--device", "cpu", *rest]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--to", "released"], "UAE checkpoint, which --to released does not serve"),
        (["--to", "ours", "--tie", "true"], "UAE checkpoint, which --tie does not serve"),
    ],
)
def test_what_a_conversion_cannot_do_is_refused(
    words: list[str], complaint: str, released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "model", str(released), "--output", str(tmp_path / "out"), *words]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_a_uae_is_merged_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_unigen(tmp_path / "model")
    assert main(["convert", "model", str(model), "--to", "ours", "--output", str(tmp_path / "out"), "--merge"]) == 2
    assert "is no UAE, so --merge does not serve it" in capsys.readouterr().err
