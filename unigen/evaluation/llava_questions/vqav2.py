# SPDX-License-Identifier: Apache-2.0
"""VQAv2 (Goyal et al., arXiv 1612.00837): the file that EvalAI takes, and the accuracy where the answers of people are given.

The truth is an annotation file of VQA, `{"annotations": [{"question_id", "answers": [{"answer"}], "answer_type"}]}`; that of the
test questions is EvalAI's alone.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unigen.data.whole_files import whole_file
from unigen.errors import EvaluationError
from unigen.evaluation.llava_questions.answers import Answered, Scores, read_content, require_found
from unigen.evaluation.statistics import clustered, estimate

SUBMISSION_NAME = "vqav2_submission.json"


def score_vqav2(answered: Sequence[Answered], truth: Path | None, folder: Path) -> Scores:
    """Writes the submission; accuracy in all and by type of answer, where there is a truth.

    Raises:
        EvaluationError: a truth that cannot be read, or lacks a question; lmms-eval is not installed.
    """
    process = _processor()
    answers = {one.id: process(one.text) for one in answered}
    with whole_file(folder / SUBMISSION_NAME) as partial:
        lines = [{"question_id": one.question["question_id"], "answer": answers[one.id]} for one in answered]
        partial.write_text(json.dumps(lines) + "\n", encoding="utf-8")
    facts = {"submission": str(folder / SUBMISSION_NAME)}
    if truth is None:
        return Scores(facts=facts)
    known = _read_truth(truth)
    require_found([one.id for one in answered if one.id not in known], truth, "answers")
    groups: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for one in answered:
        entry = known[one.id]
        pair = (str(one.question["image"]), agreement(answers[one.id], [process(text) for text in entry["texts"]]))
        groups["accuracy"].append(pair)
        groups[entry["type"]].append(pair)
    return Scores({name: estimate(clustered(pairs)) for name, pairs in groups.items()}, facts=facts)


def agreement(answer: str, people: Sequence[str]) -> float:
    """The official accuracy: over every choice of all people but one, the mean of min(1, those who said so / 3)."""
    others = [[text for place, text in enumerate(people) if place != left_out] for left_out in range(len(people))]
    return sum(min(1.0, group.count(answer) / 3) for group in others) / len(others)


def _processor() -> Callable[[str], str]:
    """The normalisation that EvalAI does too: numbers, articles, punctuation, contractions."""
    try:
        from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor
    except ImportError as error:
        raise EvaluationError("vqav2 needs lmms-eval; run: bash scripts/setup.sh eval") from error
    process: Callable[[str], str] = EvalAIAnswerProcessor()
    return process


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
