# SPDX-License-Identifier: Apache-2.0
"""SEED-Bench (Li et al., arXiv 2307.16125): multiple choice; an answer has to be the right letter.

The truth is `SEED-Bench.json`: `{"questions": [{"question_id", "answer", "question_type_id", "data_type"}], "question_type":
{name: id}}`.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unigen.errors import EvaluationError
from unigen.evaluation.llava_questions.answers import Answered, Files, Scores, read_content, require_found
from unigen.evaluation.statistics import clustered, estimate


def score_seed(answered: Sequence[Answered], files: Files) -> Scores:
    """Accuracy in all, of images and of videos, and of every kind of question.

    Raises:
        EvaluationError: a truth that cannot be read, or lacks a question.
    """
    truth = files.known_truth
    known, names = _read_truth(truth)
    require_found([one.id for one in answered if one.id not in known], truth, "answer")
    groups: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for one in answered:
        entry = known[one.id]
        pair = (str(one.question["image"]), float(one.text.strip() == entry["answer"]))
        kind = entry.get("question_type_id")
        for group in ("accuracy", entry.get("data_type"), names.get(str(kind), kind)):
            if group is not None:
                groups[str(group)].append(pair)
    return Scores({name: estimate(clustered(pairs)) for name, pairs in groups.items()})


def _read_truth(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Questions by id, and the names of their kinds by number."""
    content = read_content(path, "SEED-Bench.json")
    try:
        questions = {str(one["question_id"]): {**one, "answer": str(one["answer"])} for one in content["questions"]}
        return questions, {str(number): name for name, number in content.get("question_type", {}).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{path} has no `questions` with question_id and answer") from error
