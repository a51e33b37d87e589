# SPDX-License-Identifier: Apache-2.0
"""DPG-Bench from prompts to score: through files to a judge outside, with a model as the judge, stopped, shared, in part."""

import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.dpg.conftest import PROMPTS, ROWS
from tests.evaluation.painter import Painter, painted, verdict
from unigen.config.evaluation import DpgConfig
from unigen.data.ledger import read_ledger
from unigen.data.ranks import Ranks
from unigen.errors import EvaluationError
from unigen.evaluation.benchmarks import find_benchmarks
from unigen.evaluation.dpg.self_test import KNOWN
from unigen.evaluation.elsewhere import ImageFolder
from unigen.evaluation.job import Job, Options
from unigen.evaluation.run import Outcome, evaluate
from unigen.generation.pipeline import Pipeline

DPG = find_benchmarks(["dpgbench"])
NUM_DRAWINGS, NUM_ANSWERS = 4 * len(PROMPTS), 4 * len(ROWS)
KNOWN_LINES = [
    {"id": f"self-test/{number}", "answer": "yes" if one.is_yes else "no"} for number, one in enumerate(KNOWN)
]


@pytest.fixture(autouse=True)
def _the_judge_is_a_painter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "require_model", lambda job, name: None)
    monkeypatch.setattr(Job, "load_model", lambda job, name: job.pipeline if name == "same" else Painter())


def run(model: Pipeline, output: Path, prompts: Path, questions: Path, **options: Any) -> Outcome:
    dpg = {"prompts": str(prompts), "questions": str(questions), "num_prompts": 3, **options.pop("dpg", {})}
    return evaluate(model, DPG, Options(output=output, dpg=DpgConfig(**dpg), **options), Ranks())


MODEL = {"judge": "model", "judge_model": "same"}


def test_a_judge_outside_is_asked_and_heard_through_files(prompts: Path, questions: Path, tmp_path: Path) -> None:
    outcome = run(Painter(), tmp_path / "out", prompts, questions)
    assert len(outcome.failures) == 1
    assert f"{NUM_ANSWERS + len(KNOWN)} answers are missing; in mPLUG's environment: python" in outcome.failures[0]
    assert outcome.results is not None
    assert "dpg" not in outcome.results
    folder = tmp_path / "out" / "dpg" / "answers-mplug-plain"
    asked = [json.loads(line) for line in (folder / "questions-0.jsonl").read_text().splitlines()]
    assert len(asked) == NUM_ANSWERS
    known = [json.loads(line) for line in (folder / "questions-self_test.jsonl").read_text().splitlines()]
    assert [one["id"] for one in known] == [line["id"] for line in KNOWN_LINES]
    lines = [json.dumps(line) for line in KNOWN_LINES]
    for one in asked:  # what a judge outside does
        tile = Image.open(one["image"]).crop(one["box"])
        lines.append(
            json.dumps({"id": one["id"], "answer": "yes" if verdict(tile, one["question"]) != "no" else "no x"})
        )
    (folder / "answers.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    assert "1 answers are missing" in run(Painter(), tmp_path / "out", prompts, questions).failures[0]
    (folder / "answers.jsonl").write_text("\n".join(lines) + "\n")
    idle = Painter()
    outcome = run(idle, tmp_path / "out", prompts, questions)
    assert outcome.failures == []
    assert idle.prompts == []
    assert outcome.results is not None
    scores = outcome.results["dpg"]
    assert (scores["num_prompts"], scores["fixed"]["num_prompts"], scores["dropped"]) == (2, 3, ["parti7"])
    assert scores["fixed"]["interval"][0] <= scores["fixed"]["overall"] <= scores["fixed"]["interval"][1]
    assert scores["judge"] == {"judge": "mplug"}
    inside = run(Painter(), tmp_path / "inside", prompts, questions, dpg=MODEL).results
    assert inside is not None
    assert inside["dpg_model"]["fixed"]["overall"] == scores["fixed"]["overall"]
    assert "dpg" not in inside


def test_only_the_very_word_yes_counts_from_mplug(prompts: Path, questions: Path, tmp_path: Path) -> None:
    run(Painter(), tmp_path, prompts, questions)
    folder = tmp_path / "dpg" / "answers-mplug-plain"
    asked = [json.loads(line) for line in (folder / "questions-0.jsonl").read_text().splitlines()]
    (folder / "answers.jsonl").write_text(
        "".join(
            json.dumps(line) + "\n" for line in [*KNOWN_LINES, *({"id": one["id"], "answer": "Yes"} for one in asked)]
        )
    )
    results = run(Painter(), tmp_path, prompts, questions).results
    assert results is not None
    assert results["dpg"]["overall"] == 0.0


def test_drawings_follow_their_whole_prompts_and_stand_in_one_grid(
    prompts: Path, questions: Path, tmp_path: Path
) -> None:
    painter = Painter(row_length=12)
    results = run(painter, tmp_path, prompts, questions, dpg=MODEL).results
    assert results is not None
    assert painter.prompts == [text for item in ("0", "coco1", "parti7") for text in [PROMPTS[item]] * 4]
    assert results["dpg_model"]["num_prompts_beyond_row"] == 2  # all but "two dogs"
    records = read_ledger(tmp_path / "dpg")
    assert len(records) == NUM_DRAWINGS
    grid = Image.open(tmp_path / "dpg" / "grids-plain" / "coco1.png")
    for tile, box in enumerate([(0, 0), (8, 0), (0, 8), (8, 8)]):
        record = records[f"00001/{tile:05d}"]
        assert record["prompt_id"] == "coco1"
        assert grid.crop((*box, box[0] + 8, box[1] + 8)).tobytes() == painted(record["seed"]).tobytes()


def test_the_released_grid_is_another_result_over_the_same_drawings(
    prompts: Path, questions: Path, tmp_path: Path
) -> None:
    run(Painter(), tmp_path, prompts, questions, dpg=MODEL)
    idle = Painter()
    results = run(idle, tmp_path, prompts, questions, dpg={**MODEL, "grid": "released"}).results
    assert results is not None
    assert idle.prompts == []
    assert idle.num_asked == NUM_ANSWERS
    assert results["dpg_model"]["grid"] == "released"
    assert Image.open(tmp_path / "dpg" / "grids-released" / "0.png").size == (22, 22)


def die(after: int, output: Path, prompts: Path, questions: Path) -> None:
    run(Painter(dies_after=after), output, prompts, questions, dpg=MODEL)


@pytest.mark.parametrize("after", [5, NUM_DRAWINGS, NUM_DRAWINGS + 9])
def test_a_killed_run_goes_on_with_nothing_lost_or_done_twice(
    after: int, prompts: Path, questions: Path, tmp_path: Path
) -> None:
    process = multiprocessing.get_context("fork").Process(target=die, args=(after, tmp_path / "a", prompts, questions))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    second = Painter()
    resumed = run(second, tmp_path / "a", prompts, questions, dpg=MODEL).results
    assert len(second.prompts) + second.num_asked == NUM_DRAWINGS + NUM_ANSWERS - after
    whole = run(Painter(), tmp_path / "b", prompts, questions, dpg=MODEL).results
    assert resumed is not None
    assert whole is not None
    assert {**resumed["dpg_model"], "seconds": 0} == {**whole["dpg_model"], "seconds": 0}
    for folder, number in (("dpg", NUM_DRAWINGS), ("dpg/answers-model-plain", NUM_ANSWERS)):
        lines = [json.loads(line) for line in (tmp_path / "a" / folder / "records-0.jsonl").read_text().splitlines()]
        assert len(lines) == len({line["item_id"] for line in lines}) == number
    for file in sorted((tmp_path / "b" / "dpg").rglob("*.png")):
        assert file.read_bytes() == (tmp_path / "a" / file.relative_to(tmp_path / "b")).read_bytes()


def test_two_ranks_do_the_work_of_one(prompts: Path, questions: Path, tmp_path: Path) -> None:
    config = DpgConfig(str(prompts), str(questions), 3, judge="model", judge_model="same")
    painters = [Painter(), Painter()]
    for rank, painter in enumerate(painters):
        options = Options(output=tmp_path / "two", dpg=config)
        job = Job(painter, options, tmp_path / "two" / "dpg", painter.describe(), Ranks(rank, 2))
        assert DPG[0].run(job) == []
    assert [len(painter.prompts) for painter in painters] == [8, 4]
    idle = Painter()
    two = run(idle, tmp_path / "two", prompts, questions, dpg=MODEL).results
    one = run(Painter(), tmp_path / "one", prompts, questions, dpg=MODEL).results
    assert (idle.prompts, idle.num_asked) == ([], 0)
    assert two is not None
    assert one is not None
    assert {**one["dpg_model"], "seconds": 0} == {**two["dpg_model"], "seconds": 0}


def test_grids_drawn_elsewhere_are_scored_and_an_absent_one_fails(
    prompts: Path, questions: Path, tmp_path: Path
) -> None:
    drawn = run(Painter(), tmp_path / "own", prompts, questions, dpg=MODEL).results
    grids = tmp_path / "own" / "dpg" / "grids-plain"
    settings = {"judge": "model", "judge_model": "other"}
    scored = run(ImageFolder(grids), tmp_path / "e", prompts, questions, images=grids, dpg=settings).results
    assert drawn is not None
    assert scored is not None
    assert scored["dpg_model"]["fixed"] == drawn["dpg_model"]["fixed"]
    (grids / "coco1.png").unlink()
    arguments = (ImageFolder(grids), tmp_path / "f", prompts, questions)
    outcome = run(*arguments, images=grids, dpg=settings)
    assert "prompt coco1" in outcome.failures[0]
    assert outcome.results is not None
    assert "dpg_model" not in outcome.results
    assert list(outcome.results["failed"]) == ["dpg"]
    outcome = run(*arguments, images=grids, dpg=settings, is_partial_allowed=True)
    assert outcome.failures  # a partial score does not make it good
    assert outcome.results is not None
    assert outcome.results["dpg_model"]["partial"] is True
    assert outcome.results["dpg_model"]["fixed"]["num_prompts"] == 2


def test_another_number_of_prompts_than_the_benchmarks_is_refused(
    prompts: Path, questions: Path, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match="dpg has 1065 prompts, but here are 3"):
        run(Painter(), tmp_path, prompts, questions, dpg={**MODEL, "num_prompts": 1065})
    options = {"dpg": {**MODEL, "num_prompts": 1065}, "is_partial_allowed": True}
    results = run(Painter(), tmp_path, prompts, questions, **options).results
    assert results is not None
    assert results["dpg_model"]["partial"] is True


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"judge": "file"}, "needs dpg.judge_name"),
        ({"judge": "model"}, "needs dpg.judge_model"),
        ({"judge": "file", "judge_name": "a b"}, "dpg.judge_name is 'a b'"),
        ({"questions": "nowhere.csv"}, "dpg.questions=PATH"),
    ],
)
def test_settings_that_cannot_work_are_named(
    settings: dict[str, str], complaint: str, prompts: Path, questions: Path, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match=complaint):
        run(Painter(), tmp_path, prompts, questions, dpg=settings)


def test_a_judge_that_is_not_there_is_named_before_anything_is_drawn(
    prompts: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    painter = Painter()
    with pytest.raises(EvaluationError, match="dpg: no model 'nobody'; tried"):
        run(painter, tmp_path, prompts, questions, dpg={"judge": "model", "judge_model": "nobody"})
    assert painter.prompts == []


def test_other_questions_do_not_go_into_the_answers_of_these(prompts: Path, questions: Path, tmp_path: Path) -> None:
    run(Painter(), tmp_path, prompts, questions, dpg=MODEL)
    questions.write_text(questions.read_text().replace("Is there a cat?", "Is there one cat?"))
    with pytest.raises(EvaluationError, match="another run: questions was"):
        run(Painter(), tmp_path, prompts, questions, dpg=MODEL)
