# SPDX-License-Identifier: Apache-2.0
"""The file of answers, read back: what pairs and conversations are made of."""

import os
from dataclasses import dataclass
from pathlib import Path

from unigen.annotation.prompts import Kind, read_entries
from unigen.errors import DataError


@dataclass(frozen=True)
class RatedImage:
    """An image of a prompt with the verdict of each question."""

    filename: str
    questions: tuple[str, ...]
    verdicts: tuple[bool, ...]
    score: float


@dataclass(frozen=True)
class RatedPrompt:
    """A prompt with its images, in the order of their lines."""

    id: str
    text: str
    images: tuple[RatedImage, ...]


def read_rated(*paths: Path) -> list[RatedPrompt]:
    """The answers of one or several files by prompt, wherever their lines stand.

    Raises:
        DataError: no such file, or a line that is not one of `answers`.
    """
    grouped: dict[tuple[str, str], list[RatedImage]] = {}
    needed: dict[str, Kind] = {"filename": str, "prompt": str, "question": list, "answer": list, "score": (int, float)}
    for path, entry in ((file, line) for file in paths for line in read_entries(file, needed)):
        if len(entry["question"]) != len(entry["answer"]) or not entry["answer"]:
            raise DataError(f"{path}: {entry['filename']} has {len(entry['question'])} questions and other answers")
        verdicts = tuple(answer == "yes" for answer in entry["answer"])
        image = RatedImage(entry["filename"], tuple(entry["question"]), verdicts, float(entry["score"]))
        grouped.setdefault((str(entry.get("id")), entry["prompt"]), []).append(image)
    if not grouped:
        raise DataError(f"{' and '.join(map(str, paths))} holds no answer")
    return [RatedPrompt(name, text, tuple(images)) for (name, text), images in grouped.items()]


def relative_to(output: Path, images: Path, filename: str) -> str:
    """An image's path seen from the folder of the file that names it; images are found where readers look for them.

    Raises:
        DataError: there is no such image.
    """
    path = images / filename
    if not path.is_file():
        raise DataError(f"there is no image {path}")
    return os.path.relpath(path.resolve(), output.resolve().parent)
