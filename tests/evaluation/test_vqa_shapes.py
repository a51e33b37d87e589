# SPDX-License-Identifier: Apache-2.0
"""Questions on shapes: what counts as right, and what not looking would score."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.oracle import Oracle
from unigen.data.ranks import Ranks
from unigen.evaluation.benchmarks import find_benchmarks
from unigen.evaluation.job import Options
from unigen.evaluation.run import Outcome, evaluate
from unigen.evaluation.vqa_shapes import exchanged, majority, normalised

BENCHMARK = find_benchmarks(["vqa_shapes"])


def run(oracle: Oracle, output: Path, world: Path, **options: Any) -> Outcome:
    return evaluate(oracle, BENCHMARK, Options(output=output, world=world, **options), Ranks())


def scores_of(outcome: Outcome) -> dict[str, Any]:
    assert outcome.results is not None
    found = outcome.results["vqa_shapes"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("answer", ["red", " Red.", "RED!", "\tred\n"])
def test_case_punctuation_and_blanks_do_not_matter(answer: str) -> None:
    assert normalised(answer) == "red"


def test_other_words_do_matter() -> None:
    assert normalised("it is red") != normalised("red")
    assert normalised("two  crosses") == "two crosses"
    assert normalised("") == ""


def test_right_answers_score_one_and_answers_to_other_images_do_not(world: Path, tmp_path: Path) -> None:
    oracle = Oracle(world)
    scores = scores_of(run(oracle, tmp_path, world))
    assert scores["accuracy"] == 1.0
    assert set(scores["kinds"]) == {"color", "shape", "count", "existence", "relation"}
    assert scores["blind"] < 0.3  # it knows answers to its own images alone
    assert 0.25 < scores["majority"] < 0.6
    assert scores["num_questions"] == 30
    assert oracle.num_asked == 60


def test_wrong_answers_lower_the_accuracy_and_its_interval_holds_it(world: Path, tmp_path: Path) -> None:
    scores = scores_of(run(Oracle(world, wrong_every=3), tmp_path, world))
    assert 0.5 <= scores["accuracy"] <= 0.8
    assert scores["interval"][0] < scores["accuracy"] < scores["interval"][1]


def test_records_say_what_was_asked_and_answered(world: Path, tmp_path: Path) -> None:
    run(Oracle(world), tmp_path, world)
    lines = (tmp_path / "vqa_shapes" / "records-0.jsonl").read_text().splitlines()
    question = json.loads((world / "evaluation" / "vqa_shapes.jsonl").read_text().splitlines()[0])
    first, shuffled = json.loads(lines[0]), json.loads(lines[1])
    assert first["item_id"] == "00000/00000"
    assert {key: first[key] for key in question} == question
    assert normalised(first["prediction"]) == question["answer"]
    assert shuffled["question"] == question["question"]
    assert shuffled["image"] != question["image"]


def test_every_question_gets_another_image_when_they_are_exchanged() -> None:
    images = [f"{index // 3}.png" for index in range(30)]
    for seed in range(20):
        found = exchanged(images, seed)
        assert sorted(found) == sorted(found.values()) == sorted(set(images))
        assert all(image != other for image, other in found.items())
    assert exchanged(images, 0) == exchanged(images, 0) != exchanged(images, 1)


def test_majority_takes_the_commonest_answer_of_each_kind() -> None:
    kinds = {"color": ["red", "red", "blue"], "count": ["two", "three"]}
    entries = [{"kind": kind, "answer": answer} for kind, answers in kinds.items() for answer in answers]
    assert majority(entries) == pytest.approx(3 / 5)


def test_an_unreadable_image_fails_alone_and_asking_again_finishes(world: Path, tmp_path: Path) -> None:
    copy = tmp_path / "world"
    shutil.copytree(world / "evaluation", copy / "evaluation")
    victim = copy / "evaluation" / "images" / "00002.png"
    victim.write_bytes(victim.read_bytes()[:40])
    outcome = run(Oracle(world), tmp_path / "out", copy)
    assert outcome.failures
    assert all("images/00002.png" in failure for failure in outcome.failures)
    assert outcome.results is not None
    assert "vqa_shapes" not in outcome.results
    shutil.copy(world / "evaluation" / "images" / "00002.png", victim)
    second = Oracle(world)
    assert scores_of(run(second, tmp_path / "out", copy))["accuracy"] == 1.0
    assert second.num_asked == len(outcome.failures)


def test_scores_of_two_calls_over_one_model_stand_together(world: Path, tmp_path: Path) -> None:
    evaluate(
        Oracle(world), find_benchmarks(["geneval_shapes"]), Options(output=tmp_path, world=world, num_images=1), Ranks()
    )
    outcome = run(Oracle(world), tmp_path, world)
    assert outcome.results is not None
    assert {"geneval_shapes", "vqa_shapes", "tokenizer", "manifest"} == set(outcome.results)
    other = evaluate(Oracle(world, weights="1"), BENCHMARK, Options(output=tmp_path / "other", world=world), Ranks())
    assert other.results is not None
    (tmp_path / "other" / "vqa_shapes").rename(tmp_path / "elsewhere")
    (tmp_path / "vqa_shapes").rename(tmp_path / "old")
    replaced = run(Oracle(world, weights="1"), tmp_path, world)
    assert replaced.results is not None
    assert set(replaced.results) == {"vqa_shapes", "manifest"}
