# SPDX-License-Identifier: Apache-2.0
"""The report of what learning from rewards brings, over folders that `unigen evaluate` would have left."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from unigen.cli.main import main
from unigen.cli.study import command
from unigen.evaluation.items import Item
from unigen.evaluation.records import RecordWriter

PROMPTS = {0: "colors", 1: "colors", 2: "counting", 3: "counting"}


def evaluation(path: Path, right: set[int], prompts: dict[int, str] = PROMPTS, *, with_images: bool = True) -> Path:
    folder = path / "geneval_shapes"
    writer = RecordWriter(folder, 0)
    for prompt, tag in prompts.items():
        place = Path("images", f"{prompt:05d}", "samples", "00000.png")
        if with_images:
            (folder / place).parent.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / place)
        facts = {"tag": tag, "prompt": f"a photo of {prompt}", "path": str(place)}
        writer.append(Item(prompt, 0, seed=1), {**facts, "correct": prompt in right, "reason": ""})
    return path


def training(path: Path) -> Path:
    path.mkdir()
    lines = [{"step": step, "reward/total": step / 10, "policy/entropy": 1.0} for step in (1, 2, 3)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def study(output: Path, *words: str | Path) -> Result:
    return CliRunner().invoke(command, ["policy", *map(str, words), "--output", str(output), "--json"])


def test_the_report_compares_each_prompt_before_and_after_over_all_seeds(tmp_path: Path) -> None:
    before = evaluation(tmp_path / "before", {0})
    after = [evaluation(tmp_path / f"after-{seed}", right) for seed, right in enumerate(({0, 1, 2}, {0, 2, 3}))]
    control = evaluation(tmp_path / "control", {0})
    run = training(tmp_path / "run")
    found = study(tmp_path / "out", before, *after, "--control", control, "--run", run)
    assert found.exit_code == 0, found.output
    report: dict[str, Any] = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report == json.loads(found.stdout)
    means = {name: stage["geneval_shapes"]["mean"] for name, stage in report["stages"].items()}
    assert means == {"before": 0.25, "after": 0.75, "control": 0.25}
    assert report["stages"]["after"]["geneval_shapes"]["seeds"] == [0.75, 0.75]
    paired = report["paired"]
    assert paired["after_minus_before"]["mean"] == paired["after_minus_control"]["mean"] == 0.5
    assert paired["control_minus_before"] == {"mean": 0, "low": 0, "high": 0}
    assert 0 < paired["after_minus_before"]["low"] < 0.5 < paired["after_minus_before"]["high"]
    assert report["reward"] == {"run": {"steps": [1, 2, 3], "values": [0.1, 0.2, 0.3]}}
    assert report["num_seeds"] == 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert "+0.500" in page
    assert page.count("<figure>") == 2  # two images changed of the first seed, from wrong to right
    assert "a photo of 1" in page
    assert "a photo of 3" not in page


def test_without_a_control_and_a_run_it_is_what_there_is(tmp_path: Path) -> None:
    before, after = (evaluation(tmp_path / name, {0}) for name in ("before", "after"))
    assert study(tmp_path / "out", before, after).exit_code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["paired"]) == ["after_minus_before"]
    assert report["reward"] == {}
    assert "<figure>" not in (tmp_path / "out" / "report.html").read_text()


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = evaluation(tmp_path / "before", {0})
    other = evaluation(tmp_path / "other", {0}, {0: "colors"})
    bare = evaluation(tmp_path / "bare", {0, 1}, with_images=False)
    (tmp_path / "empty").mkdir()
    refused = {
        (other,): "scored on different prompts",
        (before, other): "over other prompts",
        (tmp_path / "empty",): "holds no records",
        (before, "--run", tmp_path / "empty"): "name the experiment.output_dir of a training run",
        (bare,): "keep them beside the records",
    }
    for words, message in refused.items():
        assert main(["study", "policy", str(before), *map(str, words), "--output", str(tmp_path / "out")]) != 0
        assert message in capsys.readouterr().err
