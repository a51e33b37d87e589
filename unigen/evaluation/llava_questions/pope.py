# SPDX-License-Identifier: Apache-2.0
"""POPE (Li et al., arXiv 2305.10355): is an object in the image, yes or no; by category, and the mean over categories.

The labels lie in a folder, `coco_pope_<category>.json` with a line `{"question_id", "image", "text", "label"}` each, in the order
of the questions of that category.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from unigen.data.json_files import numbered_lines
from unigen.errors import EvaluationError
from unigen.evaluation.llava_questions.answers import Answered, Scores
from unigen.evaluation.statistics import Estimate, clustered, estimate

_FILE = re.compile(r"coco_pope_(.+)\.json")
_NO = {"No", "not", "no"}
_VERDICT = re.compile(r"\b(yes|no|not)\b", re.IGNORECASE)


def score_pope(answered: Sequence[Answered], labels: Path, folder: Path) -> Scores:
    """Accuracy, precision, recall, F1 and the share of yes.

    Raises:
        EvaluationError: labels that are missing, or of other questions.
    """
    by_category = _read_labels(labels)
    known = {str(one.question.get("category")) for one in answered}
    absent = sorted(known - set(by_category))
    if absent:
        raise EvaluationError(f"{labels} has no coco_pope_{absent[0]}.json; give the folder of all categories")
    estimates: dict[str, Estimate] = {}
    numbers: dict[str, float] = {}
    for category in sorted(known):
        own = [one for one in answered if str(one.question.get("category")) == category]
        truth = _matched(own, by_category[category], category)
        said = [says_yes(one.text) for one in own]
        pairs = list(zip(said, truth, strict=True))
        images = [str(one.question["image"]) for one in own]
        estimates[f"{category} accuracy"] = estimate(clustered(zip(images, (a == b for a, b in pairs), strict=True)))
        numbers |= {f"{category} {name}": value for name, value in rates(pairs).items()}
    for name in ("precision", "recall", "f1", "yes_ratio"):
        values = [numbers[f"{category} {name}"] for category in sorted(known)]
        numbers[name] = sum(values) / len(values)
    unclear = sum(_VERDICT.search(one.text) is None for one in answered)
    return Scores(estimates, numbers, {"unclear": unclear})


def says_yes(text: str) -> bool:
    """The protocol's rule: the first sentence is a yes unless one of its words is `No`, `no` or `not`."""
    return not _NO & set(text.partition(".")[0].replace(",", "").split())


def rates(pairs: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    """Of (said, true) pairs; a rate of nothing is 0."""
    hits = sum(said and true for said, true in pairs)
    num_said, num_true = sum(said for said, _ in pairs), sum(true for _, true in pairs)
    precision = hits / num_said if num_said else 0.0
    recall = hits / num_true if num_true else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "yes_ratio": num_said / len(pairs)}


def _read_labels(folder: Path) -> dict[str, list[dict[str, str]]]:
    files = sorted(folder.glob("coco_pope_*.json")) if folder.is_dir() else []
    if not files:
        raise EvaluationError(f"{folder} holds no coco_pope_<category>.json; give the folder of POPE's labels")
    found = {}
    for file in files:
        name = _FILE.fullmatch(file.name)
        assert name is not None
        try:
            found[name[1]] = [json.loads(line) for _, line in numbered_lines(file.read_text(encoding="utf-8"))]
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{file} is not JSON lines: {error}") from error
    return found


def _matched(own: Sequence[Answered], labels: Sequence[dict[str, str]], category: str) -> list[bool]:
    if len(own) != len(labels):
        raise EvaluationError(f"POPE, {category}: {len(own)} questions, but {len(labels)} labels; give the right files")
    for one, label in zip(own, labels, strict=True):
        if label.get("image", one.question["image"]) != one.question["image"]:
            raise EvaluationError(
                f"POPE, {category}: question {one.id} is about {one.question['image']}, its label about {label['image']}"
            )
    return [label.get("label") == "yes" for label in labels]
