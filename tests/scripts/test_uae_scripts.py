# SPDX-License-Identifier: Apache-2.0
"""The command of UAE's README, by its flags in dashes and underscores, on a tiny released model."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny_uae import RESOLUTION, released_uae
from unigen.config.load import load_uae_parts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_uae(tmp_path_factory.mktemp("uae")).file


@pytest.fixture
def run(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs the script as `python scripts/demo.py words` does, in this process and in an empty folder; gives its exit code."""
    monkeypatch.chdir(tmp_path)

    def script(*words: str | Path) -> int:
        few = ("--model", model, "--device", "cpu", "--max-new-tokens", 5, "--steps", 2)
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, (*words, *few))])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "scripts" / "demo.py"), run_name="__main__")
        return int(end.value.code or 0)

    return script


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.linear_gradient("L").resize((24, 20)).convert("RGB").save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_a_text_is_drawn_to_its_place_and_by_its_seed(run: Callable[..., int], tmp_path: Path) -> None:
    def pixels(path: str, *words: str) -> bytes:
        assert run("--input_text", "a red circle", "--output_path", path, *words) == 0
        return Image.open(tmp_path / path).tobytes()

    first = pixels("output/new/generated_image.png")
    assert Image.open(tmp_path / "output/new/generated_image.png").size == (RESOLUTION, RESOLUTION)
    assert pixels("bare.png") == pixels("again.png", "--seed", "42") == first
    assert pixels("other.png", "--seed", "1") != first


def test_an_image_is_captioned_and_with_prompt_only_nothing_is_drawn(
    run: Callable[..., int], picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = ("--seed", "2")  # by which this model says something
    assert run("--input_img", picture, "--prompt_only", *seed) == 0
    caption = capsys.readouterr().out.rstrip("\n")
    assert caption
    assert sorted(tmp_path.iterdir()) == [picture]
    assert run("--input-img", picture, "--output-path", "drawn.png", *seed) == 0
    assert capsys.readouterr().out.startswith(caption)
    assert run("--input_text", caption, "--output_path", "text.png", *seed) == 0
    assert Image.open(tmp_path / "drawn.png").tobytes() == Image.open(tmp_path / "text.png").tobytes()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--input_text", "two", "--input_img", "picture.png"], "exclude each other"),
        (["--input_text", "two", "--prompt_only"], "--prompt_only captions an image"),
        (["--prompt_only"], "--prompt_only captions an image"),
        ([], "give --input_text TEXT to draw, or --input_img FILE"),
        (["--input_img", "absent.png", "--prompt_only"], "absent.png"),
    ],
)
def test_flags_that_exclude_each_other_are_refused(
    words: list[str], complaint: str, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert complaint in capsys.readouterr().err


def test_without_a_model_the_script_reads_the_shipped_file_and_says_which_folder_is_not_there(tmp_path: Path) -> None:
    parts = load_uae_parts(ROOT / "configs" / "uae" / "model.yaml")
    assert all(getattr(parts, key) for key in ("SD3", "dit", "dit_lora", "llm", "llm_lora", "llm_processor"))
    words = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--input_text", "two", "--device", "cpu"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert f"SD3: no scheduler/scheduler_config.json of '{parts.SD3}'" in done.stderr
