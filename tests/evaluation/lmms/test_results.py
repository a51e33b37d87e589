# SPDX-License-Identifier: Apache-2.0
"""What lmms-eval wrote is read whole, or it is said what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from unigen.errors import EvaluationError
from unigen.evaluation.lmms.results import LmmsResults, results_files

RIGHT = [1.0, 0.0, 1.0, 1.0]


def _write(
    folder: Path, task: str, numbers: dict[str, Any], samples: list[dict[str, Any]], time: str = "1"
) -> LmmsResults:
    metrics = {key.partition(",")[0]: True for key in numbers if "_stderr" not in key}
    content = {
        "results": {task: {"alias": task, " ": " ", **numbers}},
        "group_subtasks": {task: []},
        "higher_is_better": {task: metrics},
        "n-samples": {task: {"original": len(RIGHT), "effective": len(RIGHT)}},
    }
    known = results_files(folder)
    folder.mkdir(exist_ok=True)
    lines = [
        json.dumps({"doc_id": number, "input": f"{number}?", "target": "a", **sample})
        for number, sample in enumerate(samples)
    ]
    (folder / f"{time}_samples_{task}.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    (folder / f"{time}_results.json").write_text(json.dumps(content))
    found = LmmsResults.newest(folder, known)
    assert found is not None
    return found


def test_a_mean_has_its_value_its_error_and_an_interval_around_it(tmp_path: Path) -> None:
    numbers = {"exact_match,none": 0.75, "exact_match_stderr,none": 0.25, "exact_match_stderr_clustered,none": "N/A"}
    found = _write(tmp_path, "gqa", numbers, [{"exact_match": value} for value in RIGHT]).scores("gqa")
    assert (found["exact_match"], found["exact_match_stderr"], found["num_documents"]) == (0.75, 0.25, 4)
    low, high = found["exact_match_interval"]
    assert 0 <= low < 0.75 < high <= 1
    assert set(found) == {
        "exact_match",
        "exact_match_stderr",
        "exact_match_interval",
        "num_documents",
        "documents_sha256",
    }


def test_a_percentage_has_an_interval_in_percent(tmp_path: Path) -> None:
    samples = [{"gpt_eval_score": {"score": value, "eval_model": "judge"}} for value in (0.5, 0.1, 0.9, 0.4)]
    found = _write(tmp_path, "mmvet", {"gpt_eval_score,none": 47.5}, samples).scores("mmvet")
    low, high = found["gpt_eval_score_interval"]
    assert 10 <= low < 47.5 < high <= 90


def test_what_is_not_a_mean_over_documents_has_no_interval(tmp_path: Path) -> None:
    score = [{"pope_accuracy": {"score": value}, "pope_f1_score": {"score": value}} for value in RIGHT]
    found = _write(tmp_path, "pope", {"pope_accuracy,none": 0.75, "pope_f1_score,none": 0.8}, score).scores("pope")
    assert "pope_accuracy_interval" in found
    assert found["pope_f1_score"] == 0.8
    assert "pope_f1_score_interval" not in found


def test_scores_that_are_all_alike_give_a_sum_no_interval(tmp_path: Path) -> None:
    samples = [{"mme_perception_score": {"score": 0.0}} for _ in RIGHT]
    found = _write(tmp_path, "mme", {"mme_perception_score,none": 0.0}, samples).scores("mme")
    assert found["mme_perception_score"] == 0.0
    assert "mme_perception_score_interval" not in found


def test_a_prediction_beside_its_answer_is_a_score(tmp_path: Path) -> None:
    samples = [{"seed_all": {"pred": pred, "answer": "C"}} for pred in ("c", "A", "C ", "C")]
    assert "seed_all_interval" in _write(tmp_path, "seedbench", {"seed_all,none": 0.75}, samples).scores("seedbench")


def test_no_right_answer_is_zero_where_mathvista_says_nothing(tmp_path: Path) -> None:
    samples = [{"llm_as_judge_eval": {"true_false": False, "extraction": "3"}, "filtered_resps": "3"} for _ in RIGHT]
    numbers = {"llm_as_judge_eval,none": None, "submission,none": []}
    found = _write(tmp_path, "mathvista_testmini_cot", numbers, samples).scores("mathvista_testmini_cot")
    assert found["llm_as_judge_eval"] == 0.0
    assert "submission" not in found


@pytest.mark.parametrize(
    ("task", "verdict"),
    [
        ("mmvet", {"gpt_eval_score": {"score": 0.0, "eval_model": ""}}),
        ("mathvista_testmini_cot", {"llm_as_judge_eval": {"true_false": False, "extraction": ""}}),
    ],
)
def test_a_judge_that_did_not_answer_is_no_score_of_zero(task: str, verdict: dict[str, Any], tmp_path: Path) -> None:
    judged = {"gpt_eval_score": {"score": 0.0, "eval_model": "judge"}, "llm_as_judge_eval": {"true_false": False}}
    samples = [{**judged, "filtered_resps": "A"} for _ in RIGHT[1:]] + [{**judged, **verdict, "filtered_resps": "A"}]
    (metric,) = verdict
    with pytest.raises(EvaluationError, match="no answer for 1 of 4 documents"):
        _write(tmp_path, task, {f"{metric},none": 0.0}, samples).scores(task)


def test_an_empty_answer_needs_no_judge(tmp_path: Path) -> None:
    samples = [{"llm_as_judge_eval": {"true_false": False, "extraction": ""}, "filtered_resps": " "} for _ in RIGHT]
    assert (
        _write(tmp_path, "mathvista", {"llm_as_judge_eval,none": 0.0}, samples).scores("mathvista")["num_documents"]
        == 4
    )


def test_missing_documents_are_counted(tmp_path: Path) -> None:
    results = _write(tmp_path, "gqa", {"exact_match,none": 1.0}, [{"exact_match": 1.0}] * 3)
    with pytest.raises(EvaluationError, match="scored 3 of 4 documents"):
        results.scores("gqa")


def test_a_task_without_a_number_is_said(tmp_path: Path) -> None:
    results = _write(tmp_path, "vqav2_test", {"submission,none": None}, [{}] * 4)
    with pytest.raises(EvaluationError, match="no number"):
        results.scores("vqav2_test")


def test_two_ways_of_reading_answers_keep_their_names(tmp_path: Path) -> None:
    numbers = {"exact_match,strict": 0.25, "exact_match,flexible": 0.75}
    found = _write(tmp_path, "ai2d", numbers, [{"exact_match": value} for value in RIGHT]).scores("ai2d")
    assert (found["exact_match"], found["exact_match_flexible"]) == (0.25, 0.75)


def test_only_new_results_count(tmp_path: Path) -> None:
    _write(tmp_path, "gqa", {"exact_match,none": 1.0}, [{"exact_match": 1.0}] * 4)
    assert LmmsResults.newest(tmp_path, results_files(tmp_path)) is None
    again = _write(tmp_path, "gqa", {"exact_match,none": 0.5}, [{"exact_match": 0.5}] * 4, time="2")
    assert again.scores("gqa")["exact_match"] == 0.5


def test_a_group_is_its_members(tmp_path: Path) -> None:
    content = {
        "group_subtasks": {"all": ["some", "c"], "some": ["a", "b"]},
        "results": {name: {} for name in ("all", "a", "b", "c")},
    }
    results = LmmsResults(tmp_path / "1_results.json", content)
    assert results.names("all") == ["a", "b", "c"]
    assert results.names("c") == ["c"]
    assert results.names("absent") == []


def test_other_documents_have_another_hash(tmp_path: Path) -> None:
    samples = [{"exact_match": 1.0}] * 4
    first = _write(tmp_path, "gqa", {"exact_match,none": 1.0}, samples).scores("gqa")
    other = [{**sample, "input": "another?"} for sample in samples]
    second = _write(tmp_path, "gqa", {"exact_match,none": 1.0}, other, time="2").scores("gqa")
    assert first["documents_sha256"] != second["documents_sha256"]
