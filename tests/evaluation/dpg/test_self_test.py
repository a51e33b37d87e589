# SPDX-License-Identifier: Apache-2.0
"""A judge that cannot be trusted is noticed before it is believed, whichever way it is asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.dpg.test_benchmark import KNOWN_LINES, MODEL, run
from tests.evaluation.painter import Painter
from unigen.data.json_files import write_json
from unigen.errors import EvaluationError
from unigen.evaluation.dpg.judges import FileJudge
from unigen.evaluation.dpg.self_test import KNOWN, known_pictures, known_questions, self_test
from unigen.evaluation.drawings import read_image
from unigen.evaluation.job import Job

RIGHT = [line["answer"] for line in KNOWN_LINES]
MPLUG = FileJudge("dpg", {"judge": "mplug"}, is_exact=True)


def test_the_pictures_go_the_way_of_the_benchmarks_own(tmp_path: Path) -> None:
    questions = known_questions(tmp_path)
    assert len({one.key for one in questions}) == len(KNOWN)
    for one, known in zip(questions, KNOWN, strict=True):
        crop = read_image(one.image).crop(one.box)
        assert crop.tobytes() == known_pictures()[known.tile].tobytes()
    middle = [picture.getpixel((128, 128)) for picture in known_pictures()]
    assert middle[:2] == [(255, 0, 0), (0, 0, 255)]
    assert middle[3] == (0, 128, 0)


@pytest.mark.parametrize(
    "answers",
    [["yes"] * 8, ["no"] * 8, ["Yes" if answer == "yes" else answer for answer in RIGHT], RIGHT[::-1], [""] * 8],
)
def test_the_official_judge_is_refused_if_it_cannot_tell_true_from_false(answers: list[str]) -> None:
    with pytest.raises(EvaluationError, match="look at its weights, its versions and its device"):
        self_test(MPLUG, answers, None, is_official=True)
    assert self_test(MPLUG, answers, None, is_official=False)["can_tell"] is False


def test_a_judge_that_is_now_and_then_mistaken_is_believed() -> None:
    found = self_test(MPLUG, ["no", *RIGHT[1:3], "yes", *RIGHT[4:]], None, is_official=True)
    assert (found["yes_to_true"], found["yes_to_false"], found["can_tell"]) == ("3 of 4", "1 of 4", True)


def test_the_answers_of_a_trusted_installation_have_to_be_given_again(tmp_path: Path) -> None:
    golden = tmp_path / "self_test.json"
    write_json(self_test(MPLUG, RIGHT, None, is_official=True), golden)
    assert self_test(MPLUG, RIGHT, str(golden), is_official=True)["golden"] == str(golden)
    with pytest.raises(EvaluationError, match=r"'Is there a dog\?' the judge says 'no dog', and in .* 'no'"):
        self_test(MPLUG, [*RIGHT[:-1], "no dog"], str(golden), is_official=True)
    golden.write_text('{"colors": 1}')
    with pytest.raises(EvaluationError, match=r"is no self_test\.json"):
        self_test(MPLUG, RIGHT, str(golden), is_official=True)


def test_a_score_of_a_broken_official_judge_is_refused(prompts: Path, questions: Path, tmp_path: Path) -> None:
    run(Painter(), tmp_path, prompts, questions)
    folder = tmp_path / "dpg" / "answers-mplug-plain"
    asked = [json.loads(line) for file in folder.glob("questions-*.jsonl") for line in file.read_text().splitlines()]
    (folder / "answers.jsonl").write_text(
        "".join(json.dumps({"id": one["id"], "answer": "yes"}) + "\n" for one in asked)
    )
    outcome = run(Painter(), tmp_path, prompts, questions)
    assert "says yes to 4 of 4 questions where that is true, and to 4 of 4 where it is false" in outcome.failures[0]
    assert outcome.results is not None
    assert "dpg" not in outcome.results


def test_results_say_how_the_judge_did_and_the_model_is_tested_before_it_is_asked(
    prompts: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "require_model", lambda job, name: None)
    monkeypatch.setattr("unigen.evaluation.job.load_pipeline", lambda name, **settings: Painter())
    results = run(Painter(), tmp_path, prompts, questions, dpg=MODEL).results
    assert results is not None
    tested = results["dpg_model"]["self_test"]
    assert (tested["yes_to_true"], tested["yes_to_false"]) == ("4 of 4", "0 of 4")
    golden = tmp_path / "golden.json"
    write_json({**tested, "answers": {**tested["answers"], "Is the circle red?": "no"}}, golden)
    idle = Painter()
    with pytest.raises(EvaluationError, match="Is the circle red"):
        run(idle, tmp_path / "other", prompts, questions, dpg={**MODEL, "golden": str(golden)})
    assert idle.num_asked == 0


def test_a_model_that_judges_is_loaded_once(
    prompts: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def load(name: str, **settings: Any) -> Painter:
        loaded.append(name)
        return Painter()

    monkeypatch.setattr(Job, "require_model", lambda job, name: None)
    monkeypatch.setattr("unigen.evaluation.job.load_pipeline", load)
    assert run(Painter(), tmp_path, prompts, questions, dpg=MODEL).failures == []
    assert loaded == ["same"]
