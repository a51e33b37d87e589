# SPDX-License-Identifier: Apache-2.0
"""Questions to a judge and its answers on disk. An answer belongs to the pixels that it was given for.

<folder>/run.json                 who answers
<folder>/questions-<rank>.jsonl   {"id", "image", "box", "question"}: what a judge outside this process is asked
<folder>/answers*.jsonl           {"id", "answer"}: its answers; a last line without an end does not count
<folder>/records-<rank>.jsonl     the answers of a judge inside this process
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from unigen.data.json_files import write_lines
from unigen.data.ledger import LedgerWriter, read_ledger
from unigen.errors import EvaluationError
from unigen.evaluation.dpg.grid import Box, GridStyle, tile_boxes
from unigen.evaluation.dpg.judges import AnsweringJudge
from unigen.evaluation.dpg.questions import Question
from unigen.evaluation.drawings import read_image


@dataclass(frozen=True)
class TileQuestion:
    """One question about one tile."""

    key: str
    item_id: str
    tile: int
    number: int
    image: Path
    box: Box
    text: str


def tile_questions(
    item_id: str, image: Path, questions: Mapping[int, Question], num_tiles: int, style: GridStyle
) -> list[TileQuestion]:
    """All questions about a prompt's image, tile by tile.

    Raises:
        EvaluationError: the image is absent, damaged, or no such grid.
    """
    grid = read_image(image)
    found = []
    for tile, box in enumerate(tile_boxes(grid.size, num_tiles, style)):
        pixels = hashlib.sha256(grid.crop(box).tobytes()).hexdigest()
        found += [
            TileQuestion(f"{item_id}/{number}/{pixels[:32]}", item_id, tile, number, image, box, question.text)
            for number, question in questions.items()
        ]
    return found


def read_answers(folder: Path) -> dict[str, str]:
    """All answers in a judge's folder by key of their question; of two the later one.

    Raises:
        EvaluationError: a line is no answer.
    """
    answers = {key: str(record["answer"]) for key, record in read_ledger(folder).items()}
    for path in sorted(folder.glob("answers*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1], start=1):
            try:
                record = json.loads(line)
                answers[record["id"]] = str(record["answer"])
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError(f"{path}, line {number} is no answer; delete that line") from error
    return answers


def write_questions(asked: Sequence[TileQuestion], path: Path) -> None:
    """Write the questions for a judge outside; beside and renamed."""
    lines = [
        {"id": one.key, "image": str(one.image.resolve()), "box": list(one.box), "question": one.text} for one in asked
    ]
    write_lines(lines, path)


def ask(
    judge: AnsweringJudge, asked: Sequence[TileQuestion], batch_size: int, folder: Path, rank: int
) -> Iterator[str]:
    """Ask a judge inside this process and keep each answer as it comes; yields the keys that are answered."""
    writer = LedgerWriter(folder, rank)
    for one, answer in zip(asked, judge.answers(shown(asked), batch_size), strict=True):
        writer.append(one.key, {"question": one.text, "answer": answer})
        yield one.key


def shown(asked: Sequence[TileQuestion]) -> Iterator[tuple[Image.Image, str]]:
    """The tile and the words of each question."""
    path: Path | None = None
    for one in asked:
        if one.image != path:
            path, grid = one.image, read_image(one.image)
        yield grid.crop(one.box), one.text
