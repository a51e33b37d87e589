# SPDX-License-Identifier: Apache-2.0
"""The report of a run says what its files say, in JSON and on one page that needs nothing else."""

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.evaluation.oracle import Oracle
from unigen.cli.main import main
from unigen.data.ranks import Ranks
from unigen.errors import EvaluationError
from unigen.evaluation.benchmarks import find_benchmarks
from unigen.evaluation.job import Options
from unigen.evaluation.page import duration
from unigen.evaluation.report import write_report
from unigen.evaluation.run import evaluate
from unigen.evaluation.run_folder import RunFolder
from unigen.evaluation.tables import score_table

STAGES = {"sft": 30, "tokenizer": 20, "pt1": 60, "vision": 10, "pt2": 40}


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run: five stages, and an evaluation with right and wrong drawings."""
    folder = tmp_path_factory.mktemp("runs") / "quick <start>"
    benchmarks = find_benchmarks(["geneval_shapes", "vqa_shapes"])
    evaluate(
        Oracle(world, wrong_every=3), benchmarks, Options(output=folder / "evaluation", world=world, seed=7), Ranks()
    )
    for stage, steps in STAGES.items():
        write_stage(folder / stage, steps)
    (folder / "started").write_text(f"{time.time() - 500:.0f}\n")
    return folder


def write_stage(folder: Path, steps: int) -> None:
    folder.mkdir(parents=True)
    lines = [
        {"step": step, "time/seconds": step * 0.5, "loss/t2i": 2.0 / step, "loss/total": 4.0 / step, "lr": 1.0}
        for step in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text("experiment:\n  name: x\n  seed: 7\n")


def test_the_json_has_the_keys_that_others_rely_on(run: Path) -> None:
    summary = write_report(run)
    assert summary == json.loads((run / "report.json").read_text())
    results = json.loads((run / "evaluation" / "results.json").read_text())
    drawing = summary["geneval_shapes"]
    assert drawing["overall"] == results["geneval_shapes"]["overall"]
    assert set(drawing["tags"]) == {"single_object", "two_object", "counting", "colors", "position", "color_attr"}
    assert all(isinstance(drawing[key], float) for key in ("overall", "seen", "unseen", "ceiling"))
    assert drawing["interval"][0] < drawing["overall"] < drawing["interval"][1]
    assert all(isinstance(summary["vqa_shapes"][key], float) for key in ("accuracy", "majority", "blind"))
    assert isinstance(summary["tokenizer"]["psnr"], float)
    assert list(summary["stages"]) == ["tokenizer", "vision", "pt1", "pt2", "sft"]
    pt1 = summary["stages"]["pt1"]
    assert (pt1["steps"], pt1["seconds"]) == (60, 30.0)
    assert pt1["loss_first"] == pytest.approx((4 + 2 + 4 / 3) / 3)
    assert pt1["loss_last"] == pytest.approx(4 * (1 / 58 + 1 / 59 + 1 / 60) / 3)
    assert summary["seed"] == 7
    assert 490 < summary["seconds"]["total"] < 600
    assert "git_commit" in summary


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_stands_alone_and_shows_both_verdicts(run: Path) -> None:
    write_report(run)
    page = (run / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert len(links.found) > 40
    assert all(link.startswith("data:image/") for link in links.found)
    assert "<script" not in page
    assert page.count('class="right"') >= 6
    assert page.count('class="wrong"') >= 6
    for text in ("single_object", "a photo of a circle", "unsure", "held-out images", "What it cost", "95% interval"):
        assert text in page
    assert "quick &lt;start&gt;" in page, "names from outside must be escaped"


def test_total_time_does_not_grow_when_the_report_is_written_later(run: Path) -> None:
    first = RunFolder.read(run).seconds
    time.sleep(0.01)
    assert RunFolder.read(run).seconds == first


def test_a_run_without_evaluation_and_one_without_training_have_reports_too(run: Path, tmp_path: Path) -> None:
    write_stage(tmp_path / "trained" / "pt1", 4)
    trained = write_report(tmp_path / "trained")
    assert "geneval_shapes" not in trained
    assert trained["seconds"]["total"] == 2.0
    evaluated = tmp_path / "evaluated"
    evaluated.mkdir()
    (evaluated / "evaluation").symlink_to(run / "evaluation")
    assert write_report(evaluated)["stages"] == {}
    assert "single_object" in (evaluated / "report.html").read_text()


def test_an_empty_folder_and_a_damaged_file_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--run", str(tmp_path)]) == 2
    assert re.match(r"unigen: error: nothing to report in .*\n$", capsys.readouterr().err)
    write_stage(tmp_path / "pt1", 4)
    with (tmp_path / "pt1" / "metrics.jsonl").open("a") as file:
        file.write("{\n")
    with pytest.raises(EvaluationError, match=r"metrics\.jsonl, line 5"):
        write_report(tmp_path)


def test_the_command_writes_where_it_is_told_and_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "pages" / "index.html"
    assert main(["report", "--run", str(run), "--output", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7
    assert page.is_file()


def test_a_table_over_several_evaluations_has_a_column_for_each(run: Path) -> None:
    results = json.loads((run / "evaluation" / "results.json").read_text())
    table = score_table({"whole": results, "reading alone": {"vqa_shapes": results["vqa_shapes"]}})
    cells = {row.name: columns for row, columns in table}
    assert all(len(columns) == 2 for columns in cells.values())
    assert cells["overall"][1] is None
    assert cells["accuracy"][0] == cells["accuracy"][1] is not None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (7380, "2 h 03 min")]
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
