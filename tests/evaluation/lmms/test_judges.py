# SPDX-License-Identifier: Apache-2.0
"""A task that another model judges is not run without one."""

import pytest

from unigen.errors import EvaluationError
from unigen.evaluation.lmms import judges
from unigen.evaluation.lmms.judges import describe_judge, is_judged, require_judge, require_modules


@pytest.mark.parametrize("task", ["mmvet", "mathvista_testmini", "mathvista_testmini_cot", "mathvista_test"])
def test_the_judged_tasks_of_the_readmes_are_known_by_name(task: str) -> None:
    assert is_judged(task)


def test_other_judged_tasks_are_known_by_their_metrics() -> None:
    assert is_judged("mine", ["gpt_eval_score"])
    assert is_judged("mmmu_val_reasoning", ["llm_as_judge_eval"])
    assert not is_judged("pope", ["pope_accuracy", "pope_f1_score"])


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
        ({"API_TYPE": "azure", "AZURE_API_KEY": "x"}, "AZURE_ENDPOINT"),
        ({"API_TYPE": "local"}, "LLM_JUDGE_URL"),
        ({"API_TYPE": "bedrock"}, "AWS_BEARER_TOKEN_BEDROCK or AWS_PROFILE"),
        ({"API_TYPE": "dummy"}, "API_TYPE=dummy is none of"),
    ],
)
def test_a_missing_judge_names_the_variables(environment: dict[str, str], named: str) -> None:
    with pytest.raises(EvaluationError, match=named):
        require_judge(["mmvet"], environment)


@pytest.mark.parametrize(
    "environment",
    [
        {"OPENAI_API_KEY": "x"},
        {"API_TYPE": "local", "LLM_JUDGE_URL": "http://127.0.0.1:1/v1/chat/completions"},
        {"API_TYPE": "bedrock", "AWS_PROFILE": "me"},
        {"API_TYPE": "azure", "AZURE_API_KEY": "x", "AZURE_ENDPOINT": "https://a"},
    ],
)
def test_a_configured_judge_is_taken(environment: dict[str, str]) -> None:
    require_judge(["mmvet"], environment)


def test_a_package_that_mathvista_imports_is_named_if_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "find_spec", lambda module: None)
    with pytest.raises(
        EvaluationError, match=r"mathvista_testmini needs the package levenshtein.*pip install levenshtein"
    ):
        require_modules(["pope", "mathvista_testmini"])
    require_modules(["pope", "mmvet"])
    monkeypatch.setattr(judges, "find_spec", lambda module: module)
    require_modules(["mathvista_testmini"])


def test_tasks_without_a_judge_need_none() -> None:
    require_judge([], {})


def test_results_name_the_judge_and_no_secret() -> None:
    environment = {
        "API_TYPE": "local",
        "MODEL_VERSION": "judge-7b",
        "LLM_JUDGE_URL": "http://user:secret@host:8000/v1/chat/completions?key=secret",
        "OPENAI_API_KEY": "secret",
    }
    described = describe_judge(environment)
    assert described == {"api_type": "local", "model": "judge-7b", "address": "http://host:8000/v1/chat/completions"}
