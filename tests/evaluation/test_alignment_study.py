# SPDX-License-Identifier: Apache-2.0
"""The report of an alignment study, from a folder laid out as scripts/reproduce_shapes.sh leaves it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from unigen.cli.main import main
from unigen.cli.study import command
from unigen.evaluation.items import Item
from unigen.evaluation.records import RecordWriter

PROMPTS = {0: "colors", 1: "colors", 2: "counting", 3: "counting"}
CHOSEN = "geneval_shapes_cot"
VERIFIER = {"num_rated": 20, "parse_failures": 1, "accepted": 0.5, "correct": 0.4, "balanced_accuracy": 0.8, "auc": 0.9}


def write_records(folder: Path, right: set[int], colour: int, images: Path | None = None) -> None:
    writer = RecordWriter(folder, 0)
    for prompt, tag in PROMPTS.items():
        place = Path(f"{prompt:05d}", "samples", "00000.png")
        if images is not None:
            (images / place).parent.mkdir(parents=True)
            Image.new("RGB", (8, 8), (colour, 0, 0)).save(images / place)
        facts = {"tag": tag, "prompt": f"a photo of {prompt}", "path": str(Path("anywhere") / place)}
        verdict = {"correct": prompt in right, "reason": "", "pixels_sha256": str(colour)}
        writer.append(Item(prompt, 0, seed=1), {**facts, **verdict})


def write_seed(folder: Path) -> None:
    write_records(folder / "evaluation" / "dpo" / "geneval_shapes", {0, 2}, 0)
    cotv = folder / "evaluation" / "cotv"
    for colour, (selection, right) in enumerate(
        {"origin": {0}, "selected_prompt_think": {0, 1, 2}, "selected_prompt_oracle": {0, 1, 2, 3}}.items()
    ):
        images = cotv / CHOSEN / f"t2i_samples_step16_scale1.5_{selection}"
        write_records(cotv / CHOSEN / f"scores_{selection}", right, colour, images)
    (cotv / "results.json").write_text(json.dumps({CHOSEN: {"verifiers": {"think": VERIFIER}}}))
    (folder / "dpo").mkdir()
    lines = [
        {
            "step": step,
            "loss/preference": 0.7 - step / 100,
            "preference/reward_accuracy": 0.6,
            "preference/reward_margin": 0.1,
            "preference/kl_estimate": 0.0,
        }
        for step in range(1, 8)
    ]
    (folder / "dpo" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_records(tmp_path / "sft" / "evaluation" / "geneval_shapes", {0}, 0)
    for seed in range(2):
        write_seed(tmp_path / f"seed-{seed}")
    return tmp_path


def test_the_report_says_each_stage_and_what_each_step_brings(study: Path) -> None:
    found = CliRunner().invoke(command, ["alignment", str(study), "--json"])
    assert found.exit_code == 0, found.output
    report = json.loads((study / "report.json").read_text())
    assert report == json.loads(found.stdout)
    means = {name: stage["geneval_shapes"]["mean"] for name, stage in report["stages"].items()}
    assert means == {
        "sft": 0.25,
        "dpo": 0.5,
        "cotv_first_of_n": 0.25,
        "cotv_best_of_n": 0.75,
        "oracle_best_of_n": 1.0,
    }
    assert report["paired"]["dpo_minus_sft"]["mean"] == 0.25
    assert report["paired"]["best_of_n_minus_first_of_n"]["mean"] == 0.5
    assert report["verifier"] == {**VERIFIER, "num_rated": 40, "parse_failures": 2}
    assert report["dpo"]["reward_accuracy"] == pytest.approx(0.6)
    assert report["num_seeds"] == 2


def test_the_page_shows_the_choices_with_their_verdicts(study: Path) -> None:
    CliRunner().invoke(command, ["alignment", str(study)])
    page = (study / "report.html").read_text()
    assert page.count('alt="first"') == len(PROMPTS)
    assert "a photo of 3" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_study_that_is_not_finished_is_named(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "sft" / "evaluation" / "geneval_shapes" / "records-0.jsonl").unlink()
    assert main(["study", "alignment", str(study)]) == 2
    assert "geneval_shapes holds no records of drawings" in capsys.readouterr().err
