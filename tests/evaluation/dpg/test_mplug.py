# SPDX-License-Identifier: Apache-2.0
"""The script of the official judge, in another process with a stand-in for modelscope: it answers, stops and goes on."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.evaluation.painter import Painter
from unigen.config.evaluation import DpgConfig
from unigen.data.ranks import Ranks
from unigen.errors import EvaluationError
from unigen.evaluation.benchmarks import find_benchmarks
from unigen.evaluation.dpg.mplug import SCRIPT, answer_in_own_environment
from unigen.evaluation.dpg.self_test import KNOWN
from unigen.evaluation.job import Options
from unigen.evaluation.run import evaluate

PIPELINES = f"""
import os
KNOWN = { {known.text: "yes" if known.is_yes else "no" for known in KNOWN} }
"""
PIPELINES += """def pipeline(task, model, model_revision):
    assert (task, model) == ("vqa", "damo/mplug_visual-question-answering_coco_large_en")
    def answer(asked):
        if asked["image"].size == (256, 256):
            return {"text": KNOWN[asked["question"]]}
        assert asked["image"].size == (8, 8)
        if os.path.exists(os.environ["STOP"]):
            os.remove(os.environ["STOP"])
            os._exit(9)
        return {"text": "no dog" if "two" in asked["question"] else "yes"}
    return answer
"""


@pytest.fixture
def stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that ends the stand-in at its next question."""
    package = tmp_path / "stand-in" / "modelscope"
    (package / "utils").mkdir(parents=True)
    for name in ("__init__.py", "utils/__init__.py"):
        (package / name).touch()
    (package / "pipelines.py").write_text(PIPELINES)
    (package / "utils" / "constant.py").write_text('class Tasks:\n    visual_question_answering = "vqa"\n')
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("STOP", str(tmp_path / "stop"))
    return tmp_path / "stop"


def test_one_command_draws_has_the_judge_answer_and_scores(
    stop: Path, prompts: Path, questions: Path, tmp_path: Path
) -> None:
    stop.touch()
    config = DpgConfig(str(prompts), str(questions), 3, judge_python=sys.executable)
    options = Options(output=tmp_path / "out", dpg=config)
    outcome = evaluate(Painter(), find_benchmarks(["dpg"]), options, Ranks())
    assert "ended with code 9" in outcome.failures[0]
    folder = tmp_path / "out" / "dpg" / "answers-mplug-plain"
    with (folder / "answers-0.jsonl").open("a") as file:
        file.write('{"id": "half a li')
    outcome = evaluate(Painter(), find_benchmarks(["dpg"]), options, Ranks())
    assert outcome.failures == []
    assert outcome.results is not None
    scores = outcome.results["dpg"]
    assert scores["fixed"]["details"] == pytest.approx(
        {
            "entity - whole": 100.0,
            "attribute - color": 100.0,
            "other - count": 0.0,
            "relation - spatial": 100.0,
        }
    )
    assert scores["fixed"]["overall"] == pytest.approx(100 * (1 + 0.5 + 1) / 3)
    answers = [json.loads(line) for line in (folder / "answers-0.jsonl").read_text().splitlines()]
    assert len({one["id"] for one in answers}) == len(answers) == 28 + len(KNOWN)


def test_parts_that_are_started_one_after_another_leave_no_question_out(tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    (tmp_path / "questions-0.jsonl").write_text("".join(f'{{"id": "{name}"}}\n' for name in "abcdef"))
    first = script["pending_questions"](tmp_path, 0, 2)
    (tmp_path / "answers-0.jsonl").write_text('{"id": "a", "answer": "yes"}\n')
    second = script["pending_questions"](tmp_path, 1, 2)
    assert [one["id"] for one in first + second] == ["a", "c", "e", "b", "d", "f"]
    assert [one["id"] for one in script["pending_questions"](tmp_path, 0, 1)] == ["b", "c", "d", "e", "f"]


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"dpg.judge_python is .*nothing, which cannot be started"):
        answer_in_own_environment(str(tmp_path / "nothing"), tmp_path)
