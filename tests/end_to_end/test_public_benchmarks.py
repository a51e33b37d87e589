# SPDX-License-Identifier: Apache-2.0
"""Public benchmarks through the real commands with tiny random models: several checkpoints, several processes, links."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.dpg.conftest import PROMPTS, ROWS, write_csv
from tests.tiny import tiny_unigen
from tests.world import quiet_environment
from unigen.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def dpg(tmp_path: Path) -> list[str]:
    """Settings of a small DPG-Bench whose first prompt is longer than a row of the tiny model."""
    (tmp_path / "prompts").mkdir()
    for item_id, text in PROMPTS.items():
        words = text if item_id != "0" else " ".join([text] * 60)
        (tmp_path / "prompts" / f"{item_id}.txt").write_text(words)
    questions = write_csv(tmp_path / "dpg_bench.csv", ROWS)
    return [f"dpg.prompts={tmp_path / 'prompts'}", f"dpg.questions={questions}", "dpg.num_prompts=3"]


def judged_by(model: Path) -> list[str]:
    return ["dpg.judge=model", f"dpg.judge_model={model}", "dpg.judge_name=tiny"]


def results_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


def test_several_checkpoints_stand_side_by_side(
    model: Path, world: Path, dpg: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_unigen(tmp_path, reads_features=True).rename(tmp_path / "other")
    arguments = ["evaluate", "--model", str(model), "--model", str(other), "--data", str(world), "--device", "cpu"]
    arguments += ["--benchmarks", "dpg,geneval_shapes", "--steps", "2", "--output", str(tmp_path / "out")]
    assert main([*arguments, *dpg, *judged_by(model)]) == 0
    printed = capsys.readouterr().out
    assert "| score | unigen | other |" in printed
    content = results_of(tmp_path / "out")["checkpoints"]
    assert list(content) == ["unigen", "other"]
    for label, results in content.items():
        assert results == results_of(tmp_path / "out" / label)
        scores = results["dpg_tiny"]
        assert (
            0 <= scores["fixed"]["interval"][0] <= scores["fixed"]["overall"] <= scores["fixed"]["interval"][1] <= 100
        )
        assert scores["num_prompts_beyond_row"] == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "DPG-Bench (dpg_tiny)" in page
    assert "Drawing (geneval_shapes)" in page
    assert (tmp_path / "out" / "results.md").read_text().startswith("| score | unigen | other |")


def test_a_judge_outside_that_has_not_answered_is_no_success(
    model: Path, dpg: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--model", str(model), "--device", "cpu", "--benchmarks", "dpgbench", "--steps", "2"]
    assert main([*arguments, "--output", str(tmp_path / "out"), *dpg]) == 1
    assert "36 answers are missing; in mPLUG's environment: python" in capsys.readouterr().err
    assert "dpg failed (1)" in (tmp_path / "out" / "report.html").read_text()
    assert main([*arguments, "--output", str(tmp_path / "out"), *dpg, "dpg.grid=diagonal"]) == 2
    assert main([*arguments, "--output", str(tmp_path / "out"), *dpg, "--num-images", "3"]) == 2
    assert "1 or 4 images" in capsys.readouterr().err


def test_the_script_evaluates_on_two_processes_under_the_released_names(
    model: Path, world: Path, dpg: list[str], tmp_path: Path
) -> None:
    data_root = tmp_path / "data"
    (data_root / "checkpoints").mkdir(parents=True)
    (data_root / "checkpoints" / "tiny").symlink_to(model)
    (data_root / "datasets").mkdir()
    (data_root / "datasets" / "shapes").symlink_to(world)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny.yaml").write_text("drawing: {steps: 2, guidance_scale: 1.5}\n")
    command = ["bash", str(REPOSITORY / "scripts" / "run_evaluation.sh"), "--eval_checkpoint", "tiny"]
    command += ["--config", str(tmp_path / "configs" / "tiny.yaml"), "--output_dir", str(tmp_path / "out")]
    command += [
        "--local_shared_fs",
        str(data_root),
        "--eval_modules",
        "geneval_shapes+dpgbench",
        "--num_processes",
        "2",
    ]
    environment = {**os.environ, **quiet_environment(), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*command, *dpg, *judged_by(model)], capture_output=True, text=True, check=False, env=environment
    )
    assert finished.returncode == 0, finished.stderr
    folder = tmp_path / "out" / "tiny_eval_results"
    results = results_of(folder)
    assert {"geneval_shapes", "dpg_tiny", "manifest"} <= set(results)
    assert results["manifest"]["drawing"] == {"guidance_scale": 1.5, "steps": 2}
    grids = folder / "dpg_bench" / "dpg_bench_step2_scale1.5"
    assert sorted(path.name for path in grids.iterdir()) == ["0.png", "coco1.png", "parti7.png"]
    assert len(list((folder / "dpg").glob("records-*.jsonl"))) == 2
