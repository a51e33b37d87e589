# SPDX-License-Identifier: Apache-2.0
"""The benchmarks that UAE shares with the other families, over a tiny one: drawn, judged, rated by itself."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.evaluation.dpg.conftest import PROMPTS, ROWS, write_csv
from tests.tiny_uae import RESOLUTION, tiny_uae
from unigen.cli.main import main


@pytest.fixture(scope="module")
def uae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_uae(tmp_path_factory.mktemp("model") / "uae")


def test_drawings_are_judged_and_chosen_among(uae: Path, world: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    for item_id, text in PROMPTS.items():
        (tmp_path / "prompts" / f"{item_id}.txt").write_text(text)
    questions = write_csv(tmp_path / "questions.csv", ROWS)
    settings = [f"dpg.prompts={tmp_path / 'prompts'}", f"dpg.questions={questions}", f"dpg.num_prompts={len(PROMPTS)}"]
    settings += ["dpg.judge=model", f"dpg.judge_model={uae}", "dpg.judge_name=tiny"]
    where = ["--model", str(uae), "--data", str(world), "--output", str(tmp_path / "out"), "--device", "cpu"]
    words = ["--benchmarks", "dpg,geneval_shapes_cot", "--num-images", "1", "--steps", "2"]
    choice = ["--best-of", "2", "--keep", "1", "--verifier", "outcome"]
    assert main(["evaluate", *where, *words, *choice, *settings]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert 0 <= results["dpg_tiny"]["overall"] <= 100
    found = results["geneval_shapes_cot"]
    assert 0 <= found["overall"] <= found["oracle_best_of_n"]["overall"] <= 1
    assert Image.open(tmp_path / "out" / "dpg" / "images" / "0" / "samples" / "00000.png").size == (RESOLUTION,) * 2
    assert (tmp_path / "out" / "geneval_shapes_cot" / "t2i_samples_step2_scale5").is_dir()
