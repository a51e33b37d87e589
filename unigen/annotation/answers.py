# SPDX-License-Identifier: Apache-2.0
"""From questions and images to verdicts: every question of every image is asked, an image's score is its share of yes."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.annotation.candidates import find_candidates, folder_hash
from unigen.annotation.judges.judge import Judge, Request, ask_about_units
from unigen.annotation.prompts import read_entries
from unigen.annotation.step import Done, Failed, Line, StepWithoutFiles, Unit
from unigen.errors import DataError
from unigen.rewards.rating_text import rule_prompt
from unigen.rewards.verdict_words import first_verdict


@dataclass(frozen=True)
class AskedPrompt:
    """A prompt and the entries of its questions."""

    id: str
    text: str
    questions: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class _Image:
    prompt: AskedPrompt
    path: Path | None


class Answers(StepWithoutFiles):
    """The verdicts of a judge over all candidates, or of each prompt's questions over images of other prompts."""

    name = "answers"

    def __init__(
        self, prompts: Sequence[AskedPrompt], questions_sha256: str, images: Path, judge: Judge, of_others: int = 0
    ) -> None:
        """
        Args:
            of_others: above 0, so many images of other prompts are asked about, drawn by lot, in the place of a prompt's own.
        """
        self._prompts, self._sha256, self._judge = prompts, questions_sha256, judge
        self._folder, self._images = images, find_candidates(images)
        self._of_others = of_others

    def identity(self) -> Mapping[str, Any]:
        judge = {**self._judge.identity(), "request": rule_prompt("{question}")}
        others = {"of_others": self._of_others} if self._of_others else {}
        return {"questions": self._sha256, "images": folder_hash(self._images), "judge": judge, **others}

    def notes(self) -> Mapping[str, Any]:
        return self._judge.notes()

    def units(self) -> Sequence[Unit]:
        units = []
        for prompt in self._prompts:
            paths = self._others_of(prompt) if self._of_others else self._images.get(prompt.id, [None])
            for path in paths:
                units.append(Unit(rating_name(prompt.id, path) if path else prompt.id, _Image(prompt, path)))
        return units

    def _others_of(self, prompt: AskedPrompt) -> Sequence[Path]:
        """Images of other prompts, always the same; none twice, and fewer where there are no more."""
        others = [path for name, paths in self._images.items() if name != prompt.id for path in paths]
        return random.Random(prompt.id).sample(others, min(self._of_others, len(others)))

    def work(self, units: Sequence[Unit]) -> Iterator[Done | Failed]:
        return ask_about_units(self._judge, units, self._requests, _lines)

    def _requests(self, unit: Unit) -> Sequence[Request]:
        image: _Image = unit.content
        if image.path is None:
            raise DataError(f"{self._folder} holds no image of it")
        try:
            content = image.path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {image.path}: {error.strerror}") from error
        return [Request(rule_prompt(entry["question"]), content, entry) for entry in image.prompt.questions]


def rating_name(prompt_id: str, image: Path) -> str:
    """What an image is called as one of a prompt: its own name, with the prompt's where it was drawn for another."""
    return image.stem if image.stem.rpartition("_")[0] == prompt_id else f"{image.stem}.{prompt_id}"


def read_asked_prompts(path: Path) -> list[AskedPrompt]:
    """The questions of a file by prompt, wherever its lines stand; prompts in the order of their first line.

    Raises:
        DataError: no such file, no question in it, or one id with two prompts.
    """
    grouped: dict[str, tuple[str, list[Mapping[str, Any]]]] = {}
    for entry in read_entries(path, {"prompt": str, "question": str}):
        name = str(entry.get("id"))
        text, questions = grouped.setdefault(name, (entry["prompt"], []))
        if text != entry["prompt"]:
            raise DataError(f"{path}: the id {name} has two prompts, {text!r} and {entry['prompt']!r}")
        if entry["question"].strip():
            questions.append({**entry, "question": entry["question"].strip()})
    asked = [AskedPrompt(name, text, tuple(questions)) for name, (text, questions) in grouped.items() if questions]
    if not asked:
        raise DataError(f"{path} holds no question")
    return asked


def _lines(unit: Unit, replies: Sequence[str]) -> Sequence[Line]:
    """One line of the released format; a reply without a verdict is a no, and counted as `unclear`."""
    image: _Image = unit.content
    assert image.path is not None
    verdicts = [first_verdict(reply) for reply in replies]
    return [
        {
            "id": image.prompt.id,
            "filename": image.path.name,
            "prompt": image.prompt.text,
            "question": [entry["question"] for entry in image.prompt.questions],
            "answer": ["yes" if verdict else "no" for verdict in verdicts],
            "score": sum(map(bool, verdicts)) / len(verdicts),
            "unclear": verdicts.count(None),
        }
    ]
