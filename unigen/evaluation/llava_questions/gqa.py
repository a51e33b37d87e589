# SPDX-License-Identifier: Apache-2.0
"""GQA (Hudson and Manning, arXiv 1902.09506): short answers that have to be equal.

The truth is `testdev_balanced_questions.json`: `{question id: {"answer", "types": {"structural"}}}`. The predictions are also
written as the official evaluation reads them.
"""

import json
from collections import defaultdict
from collections.abc import Sequence

from unigen.data.whole_files import whole_file
from unigen.errors import EvaluationError
from unigen.evaluation.llava_questions.answers import Answered, Files, Scores, read_content, require_found
from unigen.evaluation.statistics import clustered, estimate

PREDICTIONS_NAME = "testdev_balanced_predictions.json"


def score_gqa(answered: Sequence[Answered], files: Files) -> Scores:
    """Accuracy in all, and of every structure of question.

    Raises:
        EvaluationError: a truth that cannot be read, or lacks a question.
    """
    predictions = {one.id: prediction(one.text) for one in answered}
    with whole_file(files.output / PREDICTIONS_NAME) as partial:
        lines = [{"questionId": name, "prediction": text} for name, text in predictions.items()]
        partial.write_text(json.dumps(lines) + "\n", encoding="utf-8")
    truth = files.known_truth
    known = read_content(truth, "GQA's questions")
    if not isinstance(known, dict):
        raise EvaluationError(f"{truth} is no object of questions by id")
    require_found([one.id for one in answered if "answer" not in known.get(one.id, {})], truth, "answer")
    groups: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for one in answered:
        entry = known[one.id]
        pair = (str(one.question["image"]), float(predictions[one.id] == str(entry["answer"]).lower()))
        groups["accuracy"].append(pair)
        structure = entry.get("types", {}).get("structural")
        if structure:
            groups[str(structure)].append(pair)
    return Scores({name: estimate(clustered(pairs)) for name, pairs in groups.items()})


def prediction(text: str) -> str:
    """An answer as it is compared: in small letters, without a full stop at its end."""
    return text.strip().rstrip(".").lower()
