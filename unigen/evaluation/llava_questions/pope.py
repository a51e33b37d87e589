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
from unigen.evaluation.llava_questions.answers import Answered, Files, Scores
from unigen.evaluation.statistics import Clusters, clustered, estimate

_FILE = re.compile(r"coco_pope_(.+)\.json")
_NO = {"No", "not", "no"}
_YES = re.compile(r"\byes\b", re.IGNORECASE)


def score_pope(answered: Sequence[Answered], files: Files) -> Scores:
    """Accuracy, precision, recall, F1 and the share of yes.

    Raises:
        EvaluationError: labels that are missing, or of other questions.
    """
    labels = files.known_truth
    by_category = _read_labels(labels)
    known = sorted({str(one.question.get("category")) for one in answered})
    absent = [category for category in known if category not in by_category]
    if absent:
        raise EvaluationError(f"{labels} has no coco_pope_{absent[0]}.json; give the folder of all categories")
    right: dict[str, Clusters] = {}
    found: dict[str, dict[str, float]] = {}
    for category in known:
        own = [one for one in answered if str(one.question.get("category")) == category]
        truth = _matched(own, by_category[category], category)
        pairs = [(says_yes(one.text), label) for one, label in zip(own, truth, strict=True)]
        images = [one.question["image"] for one in own]
        right[category] = clustered(zip(images, (said == label for said, label in pairs), strict=True))
        found[category] = rates(pairs)
    estimates = {"accuracy": estimate(*right.values())}
    estimates |= {f"{category} accuracy": estimate(clusters) for category, clusters in right.items()}
    numbers = {name: sum(one[name] for one in found.values()) / len(found) for name in next(iter(found.values()))}
    numbers |= {f"{category} {name}": value for category, one in found.items() for name, value in one.items()}
    return Scores(estimates, numbers, {"unclear": sum(is_unclear(one.text) for one in answered)})


def says_yes(text: str) -> bool:
    """The protocol's rule: the first sentence is a yes unless one of its words is `No`, `no` or `not`."""
    return not _NO & set(_first_sentence(text).replace(",", "").split())


def is_unclear(text: str) -> bool:
    """Whether that rule takes for a yes what does not say so."""
    return says_yes(text) and _YES.search(_first_sentence(text)) is None


def _first_sentence(text: str) -> str:
    return text.partition(".")[0]


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
