# SPDX-License-Identifier: Apache-2.0
"""From prompts to yes/no questions about what an image of the prompt must show: by a judge, or by rule from a scene."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unigen.annotation.judges.judge import Judge, Request, ask_about_units, reason_of
from unigen.annotation.prompts import Prompt
from unigen.annotation.scene_questions import scene_questions
from unigen.annotation.step import Done, Failed, Line, StepWithoutFiles, Unit
from unigen.errors import DataError

QUESTION_REQUEST = (
    "Turn the image description below into visual questions that can be answered with yes or no by looking at an image. "
    "Go through the description part by part: ask first whether each thing is there, then about its attributes (color, "
    "count, texture, shape, size) and about how things lie or act in relation to each other. Ask about one fact at a time, "
    "leave nothing out and add nothing. Every question must be answered with yes for an image that fits the description. "
    "Write the questions alone, separated by semicolons.\n\n"
    "Description: two brown dogs on a sofa\n"
    "Questions: Are there dogs?; Are there exactly two dogs?; Are the dogs brown?; Is there a sofa?; Are the dogs on the "
    "sofa?\n\n"
    "Description: a tall glass vase with red tulips left of an open book\n"
    "Questions: Is there a vase?; Is the vase made of glass?; Is the vase tall?; Are there tulips?; Are the tulips red?; "
    "Are the tulips in the vase?; Is there a book?; Is the book open?; Is the vase left of the book?\n\n"
    "Description: a knitted scarf\n"
    "Questions: Is there a scarf?; Is the scarf knitted?\n\n"
    "Description: {prompt}\n"
    "Questions:"
)
_SEPARATOR = re.compile(r"[;?\n]")
_LABEL = re.compile(r"^(questions?\s*:|[-*•]|\(?\d+[.)])\s*", re.IGNORECASE)


class JudgedQuestions(StepWithoutFiles):
    """Questions that a language model makes of a prompt."""

    name = "questions"

    def __init__(self, prompts: Sequence[Prompt], prompts_sha256: str, judge: Judge) -> None:
        self._prompts, self._sha256, self._judge = prompts, prompts_sha256, judge

    def identity(self) -> Mapping[str, Any]:
        judge = {**self._judge.identity(), "request": QUESTION_REQUEST}
        return {"prompts": self._sha256, "num_prompts": len(self._prompts), "judge": judge}

    def notes(self) -> Mapping[str, Any]:
        return self._judge.notes()

    def units(self) -> Sequence[Unit]:
        return [Unit(prompt.id, prompt) for prompt in self._prompts]

    def work(self, units: Sequence[Unit]) -> Iterator[Done | Failed]:
        return ask_about_units(self._judge, units, self._requests, self._lines)

    def _requests(self, unit: Unit) -> Sequence[Request]:
        return [Request(QUESTION_REQUEST.format(prompt=unit.content.text))]

    def _lines(self, unit: Unit, replies: Sequence[str]) -> Sequence[Line]:
        questions = parse_questions(replies[0])
        if not questions:
            raise DataError(f"the judge named no question: {replies[0][:80]!r}")
        return [question_line(unit.content, question) for question in questions]


class RuleQuestions(StepWithoutFiles):
    """Questions made of a scene that stands in the entry itself (`include`, perhaps `exclude`); each carries its `check`."""

    name = "questions"

    def __init__(self, prompts: Sequence[Prompt], prompts_sha256: str) -> None:
        self._prompts, self._sha256 = prompts, prompts_sha256

    def identity(self) -> Mapping[str, Any]:
        return {"prompts": self._sha256, "num_prompts": len(self._prompts), "judge": {"kind": "rule"}}

    def units(self) -> Sequence[Unit]:
        return [Unit(prompt.id, prompt) for prompt in self._prompts]

    def work(self, units: Sequence[Unit]) -> Iterator[Done | Failed]:
        for unit in units:
            try:
                asked = scene_questions(unit.content.fields)
            except DataError as error:
                yield Failed(unit, reason_of(error))
                continue
            yield Done(unit, [question_line(unit.content, question, check=check) for question, check in asked])


def question_line(prompt: Prompt, question: str, **more: Any) -> Line:
    """One line of the released format: `id`, `prompt`, `question`."""
    return {"id": prompt.id, "prompt": prompt.text, "question": question, **more}


def parse_questions(reply: str) -> list[str]:
    """The questions of a reply, each once: what ends with a question mark, a semicolon or a line, without numbers and bullets.

    Each ends with its only question mark, so that what is written after it can be told from it.
    """
    questions: dict[str, None] = {}
    for piece in _SEPARATOR.split(reply):
        words = _LABEL.sub("", _LABEL.sub("", piece.strip())).strip(" \t\r.,:")
        if words:
            questions[" ".join(words.split()) + "?"] = None
    return list(questions)
