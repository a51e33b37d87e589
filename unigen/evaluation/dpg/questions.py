# SPDX-License-Identifier: Apache-2.0
"""The questions of DPG-Bench: a csv with one yes/no question a row, which may depend on other questions of its prompt."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unigen.data.json_files import write_lines
from unigen.errors import EvaluationError

COLUMNS = ("item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language")
NO_PARENT = 0
EXPORT_NAME = "dpg_bench_questions.jsonl"


@dataclass(frozen=True)
class Question:
    item_id: str
    number: int
    """Its `proposition_id`, by which other questions of the prompt name it."""
    parents: tuple[int, ...]
    """The questions without whose "yes" this one means nothing."""
    detail: str
    """The kind as `attribute - color`: what stands before the parenthesis in `tuple`."""
    text: str

    @property
    def level(self) -> str:
        """The broad kind, as `attribute`."""
        return self.detail.partition("-")[0].strip()


@dataclass(frozen=True)
class QuestionFile:
    """A file of questions."""

    questions: tuple[Question, ...]
    """In the order of the file."""
    prompts: Mapping[str, str]
    """The text of each prompt."""
    num_malformed: int
    """Rows without a question and dependencies that are no number; they were left out."""

    def by_item(self, *, skips_first_row: bool = False) -> dict[str, dict[int, Question]]:
        """The questions of each prompt by number, in the order of the file; of two with one number the later one.

        Args:
            skips_first_row: whether the first row of data counts as a second header, as in the released scorer.
        """
        found: dict[str, dict[int, Question]] = {}
        for question in self.questions[1 if skips_first_row else 0 :]:
            found.setdefault(question.item_id, {})[question.number] = question
        return found


def read_question_file(path: Path) -> QuestionFile:
    """Read a csv of questions.

    Raises:
        EvaluationError: it cannot be read, lacks a column, or has a row without a number.
    """
    questions: list[Question] = []
    prompts: dict[str, str] = {}
    num_malformed = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise EvaluationError(f"{path} has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
            for row in reader:
                question, malformed = _read_row(row, f"{path}, line {reader.line_num}")
                num_malformed += malformed
                if question.text:
                    questions.append(question)
                    prompts.setdefault(question.item_id, (row["text"] or "").strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"cannot read the questions in {path}: {error}; fetch the file again") from error
    if not questions:
        raise EvaluationError(f"{path} holds no question; fetch the file again")
    return QuestionFile(tuple(questions), prompts, num_malformed)


def export_questions(file: QuestionFile, path: Path) -> int:
    """Write one JSON line a prompt, `{item_id, prompt, questions: [...]}`, in the order of the file; returns their number."""
    lines = [
        {
            "item_id": item_id,
            "prompt": file.prompts[item_id],
            "questions": [question.text for question in questions.values()],
        }
        for item_id, questions in file.by_item().items()
    ]
    write_lines(lines, path)
    return len(lines)


def require_questions(file: QuestionFile, item_ids: Sequence[str], path: Path) -> None:
    """Raises EvaluationError where a prompt has no question."""
    known = {question.item_id for question in file.questions}
    missing = [item_id for item_id in item_ids if item_id not in known]
    if missing:
        raise EvaluationError(
            f"{path} has no question for {len(missing)} of {len(item_ids)} prompts (first {missing[0]}); "
            "prompts and questions must be of one version"
        )


def _read_row(row: Mapping[str, str | None], place: str) -> tuple[Question, int]:
    """A question, and how much of the row is malformed."""
    number, text, item_id, kind, dependency = (
        (row[name] or "").strip()
        for name in ("proposition_id", "question_natural_language", "item_id", "tuple", "dependency")
    )
    if not number.isdecimal():
        raise EvaluationError(f"{place}: proposition_id is {number!r}, which is no number; fetch the file again")
    words = [word.strip() for word in dependency.split(",") if word.strip()]
    parents = tuple(int(word) for word in words if word.isdecimal() and int(word) != NO_PARENT)
    question = Question(item_id, int(number), parents, kind.partition("(")[0].strip(), text)
    return question, sum(not word.isdecimal() for word in words) + (not text)
