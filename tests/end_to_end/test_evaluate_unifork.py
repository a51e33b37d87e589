# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of `unigen evaluate` over a tiny UniFork: drawn, asked, rated, with its own settings and nobody else's."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.dpg.conftest import PROMPTS, ROWS, write_csv
from tests.tiny_unifork import released_unifork
from unigen.cli.main import main
from unigen.generation.pipeline import DrawRequest, load_pipeline
from unigen.generation.seeds import image_seed


@pytest.fixture(scope="module")
def unifork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_unifork(tmp_path_factory.mktemp("model") / "unifork")


@pytest.fixture
def evaluate(unifork: Path, world: Path, tmp_path: Path) -> Any:
    def run(benchmarks: str, *words: str) -> int:
        where = ["--model", str(unifork), "--data", str(world), "--output", str(tmp_path), "--device", "cpu"]
        return main(["evaluate", *where, "--benchmarks", benchmarks, "--num-images", "1", *words])

    return run


def test_drawing_and_reading_are_scored_with_the_settings_of_the_family(
    evaluate: Any, unifork: Path, world: Path, tmp_path: Path
) -> None:
    assert evaluate("geneval_shapes,vqa_shapes", "--released-layout") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert 0 <= results["geneval_shapes"]["overall"] < results["geneval_shapes"]["detector"]
    assert 0 <= results["vqa_shapes"]["accuracy"] < 1
    assert results["tokenizer"]["num_images"] > 0
    prompt = json.loads((world / "evaluation" / "geneval_shapes.jsonl").read_text().splitlines()[0])["prompt"]
    (image,) = load_pipeline(unifork, device="cpu").draw_requests(
        [DrawRequest(prompt, image_seed(0, "geneval_shapes|00000", 0))]
    )
    drawn = Image.open(tmp_path / "geneval_shapes" / "images" / "00000" / "samples" / "00000.png")
    assert drawn.tobytes() == image.tobytes()


@pytest.mark.parametrize("style", ["think", "probability"])
def test_the_model_chooses_among_its_own_drawings(style: str, evaluate: Any, tmp_path: Path) -> None:
    assert evaluate("geneval_shapes_cot", "--best-of", "2", "--keep", "1", "--verifier", style) == 0
    found = json.loads((tmp_path / "results.json").read_text())["geneval_shapes_cot"]
    assert found["selection"] == "2 drawn, best 1 kept"
    assert 0 <= found["overall"] <= found["oracle_best_of_n"]["overall"]
    assert (tmp_path / "geneval_shapes_cot" / "t2i_samples_scale4" / "00000" / "samples").is_dir()


def test_the_prompts_of_dpg_are_drawn_for_a_judge_outside(
    evaluate: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    for item_id, text in PROMPTS.items():
        (prompts / f"{item_id}.txt").write_text(text)
    questions = write_csv(tmp_path / "questions.csv", ROWS)
    settings = [f"dpg.prompts={prompts}", f"dpg.questions={questions}", f"dpg.num_prompts={len(PROMPTS)}"]
    assert evaluate("dpg", *settings, "dpg.judge=file", "dpg.judge_name=outside") == 1
    assert "answers are missing" in capsys.readouterr().err
    assert len(list((tmp_path / "dpg").rglob("*.png"))) >= len(PROMPTS)


def test_a_setting_of_another_family_is_refused_in_one_line(evaluate: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("geneval_shapes", "--steps", "3") == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("unigen: error")]
    assert "UniFork does not know the setting 'steps'" in line
