# SPDX-License-Identifier: Apache-2.0
"""MME (Fu et al., arXiv 2306.13394): two yes-no questions an image; accuracy plus the share of images with both right.

The truth lies in a folder with one folder a category (there perhaps under `questions_answers_YN`): `<image>.txt` with lines
`question<TAB>Yes` or `No`. A question's id is `<category>/<image>`, its text may end with a request for a single word.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from unigen.errors import EvaluationError
from unigen.evaluation.llava_questions.answers import Answered, Files, Scores, require_found
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


def score_mme(answered: Sequence[Answered], files: Files) -> Scores:
    """The score of every category (0 to 200), of perception and of cognition: sums over their categories that were asked.

    Raises:
        EvaluationError: a question without a truth.
    """
    truth = files.known_truth
    keys = [key_of(one) for one in answered]
    answers = _read_truth(truth, {category for category, _, _ in keys})
    require_found(["/".join(key) for key in keys if key not in answers], truth, "answer")
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for key, one in zip(keys, answered, strict=True):
        right[key[0]][key[1]].append(leading_verdict(one.text) == answers[key])
    wanted = Counter(key[:2] for key in answers)
    rates = {
        category: category_rates(images, {image: wanted[category, image] for image in images})
        for category, images in sorted(right.items())
    }
    numbers = {category: 100 * sum(both.values()) for category, both in rates.items()}
    for name, parts in (("perception", PERCEPTION), ("cognition", COGNITION)):
        present = [numbers[part] for part in parts if part in numbers]
        if present:
            numbers[name] = sum(present)
    values = [[float(one) for one in image] for images in right.values() for image in images.values()]
    unclear = sum(leading_verdict(one.text) is None for one in answered)
    incomplete = sorted({*PERCEPTION, *COGNITION} - set(right))
    facts = {"unclear": unclear, "categories": rates, **({"categories_missing": incomplete} if incomplete else {})}
    return Scores({"accuracy": estimate(values)}, numbers, facts)


def category_rates(images: Mapping[str, Sequence[bool]], wanted: Mapping[str, int]) -> dict[str, float]:
    """The share of questions that are right, and that of images with all of their `wanted` questions right; an image of which
    a question was not asked is none of the latter."""
    answers = [one for image in images.values() for one in image]
    whole = [all(image) for name, image in images.items() if len(image) == wanted[name]]
    return {"accuracy": sum(answers) / len(answers), "accuracy_plus": sum(whole) / len(whole) if whole else 0.0}


def key_of(one: Answered) -> Key:
    """What the truth calls a question."""
    category, _, rest = one.id.partition("/")
    return category, Path(rest).stem, _plain(str(one.question["text"]))


def _plain(question: str) -> str:
    """Without the request, and with single blanks: the two files differ in these."""
    return " ".join(question.split()).removesuffix(_REQUEST).rstrip()


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
                    found[category, file.stem, _plain(question)] = answer.strip().lower() == "yes"
    return found
