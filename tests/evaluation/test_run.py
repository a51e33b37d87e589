# SPDX-License-Identifier: Apache-2.0
"""Several benchmarks in one run: one that cannot be run keeps no other from it; manifests and records say when and how long."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.oracle import Oracle
from unigen.config.evaluation import DpgConfig
from unigen.data.ranks import Ranks
from unigen.errors import DataError, EvaluationError
from unigen.evaluation.benchmarks import find_benchmarks
from unigen.evaluation.job import Job, Options
from unigen.evaluation.records import read_records
from unigen.evaluation.run import evaluate
from unigen.evaluation.vqa_shapes import VqaShapes


def options(world: Path, output: Path) -> Options:
    return Options(output=output, world=world, num_images=1, dpg=DpgConfig(questions="nowhere.csv"))


def test_what_cannot_be_run_is_said_first_and_the_others_are_run(world: Path, tmp_path: Path) -> None:
    oracle, said = Oracle(world), []

    def warn(lines: list[str]) -> None:
        said.append((lines, len(oracle.drawn)))

    wanted = find_benchmarks(["dpg", "geneval_shapes", "vqa_shapes"])
    outcome = evaluate(oracle, wanted, options(world, tmp_path), Ranks(), warn)
    ((lines, num_drawn_before),) = said
    assert num_drawn_before == 0
    assert lines == outcome.failures
    assert "dpg" in lines[0]
    assert "dpg.prompts=PATH" in lines[0]
    assert outcome.has_mistake
    assert outcome.results is not None
    assert outcome.results["failed"] == {"dpg": lines}
    assert {"geneval_shapes", "vqa_shapes"} <= set(outcome.results)
    assert not (tmp_path / "dpg").exists()


@pytest.mark.parametrize("kind", [EvaluationError, DataError])
def test_a_benchmark_that_breaks_off_in_the_middle_ends_no_other(
    kind: type[Exception], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(self: Any, job: Job) -> list[str]:
        raise kind("the judge is gone")

    monkeypatch.setattr(VqaShapes, "run", break_off)
    wanted = find_benchmarks(["vqa_shapes", "geneval_shapes"])
    outcome = evaluate(Oracle(world), wanted, options(world, tmp_path), Ranks())
    assert (outcome.failures, outcome.has_mistake) == (["vqa_shapes: the judge is gone"], True)
    assert outcome.results is not None
    assert outcome.results["geneval_shapes"]["overall"] == 1.0
    monkeypatch.undo()
    outcome = evaluate(Oracle(world), wanted, options(world, tmp_path), Ranks())
    assert outcome.results is not None
    assert (outcome.failures, outcome.has_mistake, "failed" in outcome.results) == ([], False, False)


def test_where_nothing_can_be_run_nothing_is_written(world: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"dpg.prompts=PATH"):
        evaluate(Oracle(world), find_benchmarks(["dpg"]), options(world, tmp_path / "out"), Ranks())
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_run_is_known_before_anything_is_drawn(world: Path, tmp_path: Path) -> None:
    both = find_benchmarks(["geneval_shapes", "vqa_shapes"])
    evaluate(Oracle(world), both[1:], options(world, tmp_path), Ranks())
    other = Oracle(world, weights="1")
    seen: list[int] = []
    evaluate(other, both, options(world, tmp_path), Ranks(), lambda lines: seen.append(len(other.drawn)))
    assert seen == [0]
    assert len(other.drawn) > 0
    assert other.num_asked == 0


def test_manifests_say_when_all_was_done_and_records_how_long_each_took(world: Path, tmp_path: Path) -> None:
    wanted = find_benchmarks(["geneval_shapes"])
    evaluate(Oracle(world), wanted, options(world, tmp_path), Ranks())
    manifest = json.loads((tmp_path / "geneval_shapes" / "run.json").read_text())
    started, ended = (datetime.fromisoformat(manifest[name]) for name in ("started", "ended"))
    assert started <= ended
    records = read_records(tmp_path / "geneval_shapes").values()
    assert all(0 <= record["seconds"] < 60 and record["ended"] > manifest["started"][:19] for record in records)
    evaluate(Oracle(world), wanted, options(world, tmp_path), Ranks())
    assert json.loads((tmp_path / "geneval_shapes" / "run.json").read_text()) == manifest, "nothing was done since"


def test_a_run_with_failures_has_not_ended(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = VqaShapes.run
    monkeypatch.setattr(VqaShapes, "run", lambda self, job: [*whole(self, job), "one cannot be read"])
    evaluate(Oracle(world), find_benchmarks(["vqa_shapes"]), options(world, tmp_path), Ranks())
    assert "ended" not in json.loads((tmp_path / "vqa_shapes" / "run.json").read_text())
