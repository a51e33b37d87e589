# SPDX-License-Identifier: Apache-2.0
"""VQAv2 (Goyal et al., arXiv 1612.00837): the file that EvalAI takes, and the accuracy where the answers of people are given.

The truth is an annotation file of VQA, `{"annotations": [{"question_id", "answers": [{"answer"}], "answer_type"}]}`; that of the
test questions is EvalAI's alone. EvalAI wants an answer to every test question, also where only test-dev is asked: if
`llava_vqav2_mscoco_test2015.jsonl` lies beside the question file, its other questions get an empty one.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unigen.data.whole_files import whole_file
from unigen.errors import EvaluationError
from unigen.evaluation.items import read_entries
from unigen.evaluation.llava_questions.answers import Answered, Files, Scores, read_content, require_found
from unigen.evaluation.statistics import clustered, estimate

SUBMISSION_NAME = "vqav2_submission.json"
ALL_QUESTIONS_NAME = "llava_vqav2_mscoco_test2015.jsonl"


def score_vqav2(answered: Sequence[Answered], files: Files) -> Scores:
    """Writes the submission; accuracy in all and by type of answer, where there is a truth.

    Raises:
        EvaluationError: a truth that cannot be read, or lacks a question; lmms-eval is not installed.
    """
    normalise = require_processor()
    answers = {one.id: normalise(one.text) for one in answered}
    lines = [{"question_id": one.question["question_id"], "answer": answers[one.id]} for one in answered]
    unasked = _unasked(set(answers), files.questions.with_name(ALL_QUESTIONS_NAME))
    with whole_file(files.output / SUBMISSION_NAME) as partial:
        content = [*lines, *({"question_id": question_id, "answer": ""} for question_id in unasked)]
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    facts = {"submission": str(files.output / SUBMISSION_NAME), "num_unasked": len(unasked)}
    if files.truth is None:
        return Scores(facts=facts)
    known = _read_truth(files.truth)
    require_found([one.id for one in answered if one.id not in known], files.truth, "answers")
    groups: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for one in answered:
        entry = known[one.id]
        people = [normalise(text) for text in entry["texts"]]
        pair = (str(one.question["image"]), agreement(answers[one.id], people))
        groups["accuracy"].append(pair)
        groups[entry["type"]].append(pair)
    return Scores({name: estimate(clustered(pairs)) for name, pairs in groups.items()}, facts=facts)


def agreement(answer: str, people: Sequence[str]) -> float:
    """The official accuracy: over every choice of all people but one, the mean of min(1, those who said so / 3)."""
    others = [[text for place, text in enumerate(people) if place != left_out] for left_out in range(len(people))]
    return sum(min(1.0, group.count(answer) / 3) for group in others) / len(others)


def require_processor() -> Callable[[str], str]:
    """lmms-eval's form of answers, which is EvalAI's: numbers as digits, no articles, one spelling of contractions.

    Raises:
        EvaluationError: it is not installed.
    """
    try:
        from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor
    except ImportError as error:
        raise EvaluationError("vqav2 needs lmms-eval; run: bash scripts/setup.sh eval") from error
    process: Callable[[str], str] = EvalAIAnswerProcessor()
    return process


def _unasked(asked: set[str], all_questions: Path) -> list[Any]:
    """Ids of the questions that EvalAI expects besides; none where those that were asked are no part of them."""
    if not all_questions.is_file():
        return []
    wanted = [entry["question_id"] for entry in read_entries(all_questions, ("question_id",), "fetch it again")]
    return [one for one in wanted if str(one) not in asked] if asked <= set(map(str, wanted)) else []


def _read_truth(path: Path) -> dict[str, dict[str, Any]]:
    content = read_content(path, "annotations of VQA")
    try:
        return {
            str(one["question_id"]): {
                "texts": [str(answer["answer"]) for answer in one["answers"]],
                "type": str(one.get("answer_type", "other")),
            }
            for one in content["annotations"]
        }
    except (KeyError, TypeError) as error:
        raise EvaluationError(f"{path} has no `annotations` with question_id and answers") from error
