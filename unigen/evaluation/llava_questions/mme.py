# SPDX-License-Identifier: Apache-2.0
"""MME (Fu et al., arXiv 2306.13394): two yes-no questions an image; accuracy plus the share of images with both right.

The truth lies in a folder with one folder a category (there perhaps under `questions_answers_YN`): `<image>.txt` with lines
`question<TAB>Yes` or `No`. A question's id is `<category>/<image>`, its text may end with a request for a single word.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from unigen.errors import EvaluationError
from unigen.evaluation.llava_questions.answers import Answered, Scores, require_found
from unigen.evaluation.statistics import estimate
from unigen.rewards.verdict_words import leading_verdict

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_REQUEST = "Answer the question using a single word or phrase."

Key = tuple[str, str, str]
"""Category, image (without its extension), question."""


def score_mme(answered: Sequence[Answered], truth: Path, folder: Path) -> Scores:
    """The score of every category (0 to 200), of perception and of cognition: sums over their categories that were asked.

    Raises:
        EvaluationError: a question without a truth.
    """
    keys = [key_of(one) for one in answered]
    answers = _read_truth(truth, {category for category, _, _ in keys})
    require_found(["/".join(key) for key in keys if key not in answers], truth, "answer")
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for key, one in zip(keys, answered, strict=True):
        right[key[0]][key[1]].append(leading_verdict(one.text) == answers[key])
    numbers = {category: category_score(images) for category, images in sorted(right.items())}
    for name, parts in (("perception", PERCEPTION), ("cognition", COGNITION)):
        present = [numbers[part] for part in parts if part in numbers]
        if present:
            numbers[name] = sum(present)
    values = [[float(one) for one in image] for images in right.values() for image in images.values()]
    unclear = sum(leading_verdict(one.text) is None for one in answered)
    incomplete = sorted({*PERCEPTION, *COGNITION} - set(right))
    facts = {"unclear": unclear, **({"categories_missing": incomplete} if incomplete else {})}
    return Scores({"accuracy": estimate(values)}, numbers, facts)


def category_score(images: Mapping[str, Sequence[bool]]) -> float:
    """100 times the share of questions that are right plus the share of images of which all are."""
    answers = [one for image in images.values() for one in image]
    return 100 * (sum(answers) / len(answers) + sum(map(all, images.values())) / len(images))


def key_of(one: Answered) -> Key:
    """What the truth calls a question."""
    category, _, rest = one.id.partition("/")
    question = str(one.question["text"]).removesuffix(_REQUEST).strip()
    return category, Path(rest).stem, question


def _read_truth(folder: Path, categories: set[str]) -> dict[Key, bool]:
    found: dict[Key, bool] = {}
    for category in sorted(categories):
        place = folder / category
        if not place.is_dir():
            raise EvaluationError(f"{folder} has no folder {category}; give that of MME's release")
        inner = place / "questions_answers_YN"
        for file in sorted((inner if inner.is_dir() else place).glob("*.txt")):
            for line in file.read_text(encoding="utf-8").splitlines():
                question, tab, answer = line.partition("\t")
                if tab:
                    found[category, file.stem, question.removesuffix(_REQUEST).strip()] = (
                        answer.strip().lower() == "yes"
                    )
    return found
