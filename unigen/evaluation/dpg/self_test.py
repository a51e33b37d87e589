# SPDX-License-Identifier: Apache-2.0
"""What a judge is asked before it is believed: questions about plain pictures, in which nobody who looks could be mistaken.

Wrong weights, a wrong crop, answers in other words, or a GPU that computes nonsense give a low score and no error. So these
questions take the very way of the benchmark's own: through files to another environment, as boxes of one image, read for the
same word. The official judge has to say yes to more of what is true than of what is false; of another judge that is said, and
not required, since it may know little. Besides, answers that a trusted installation gave (`dpg.golden`) are reproduced.

<folder>/self_test.png             the pictures
<folder>/questions-self_test.jsonl what a judge outside this process is asked
<folder>/self_test.json            what came of it; also what `dpg.golden` names
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from unigen.data.json_files import read_json
from unigen.errors import EvaluationError
from unigen.evaluation.dpg.answers import TileQuestion
from unigen.evaluation.dpg.grid import make_grid, tile_boxes
from unigen.evaluation.dpg.judges import Judge
from unigen.generation.png import write_png

SIDE = 256
SELF_TEST_NAME, PICTURE_NAME, QUESTIONS_NAME = "self_test.json", "self_test.png", "questions-self_test.jsonl"
ANSWERS = "answers"


@dataclass(frozen=True)
class Known:
    """A question about one of the pictures, and whether the answer is yes."""

    tile: int
    text: str
    is_yes: bool


KNOWN = (
    Known(0, "Is the circle red?", True),
    Known(0, "Is the circle blue?", False),
    Known(1, "Is the square blue?", True),
    Known(1, "Is the square yellow?", False),
    Known(2, "Are there two circles?", True),
    Known(2, "Are there five circles?", False),
    Known(3, "Is the image green?", True),
    Known(3, "Is there a dog?", False),
)


def known_pictures() -> list[Image.Image]:
    """A red circle, a blue square and two black circles on white, and a wholly green picture."""
    pictures = [Image.new("RGB", (SIDE, SIDE), color) for color in ("white", "white", "white", "green")]
    quarter, half = SIDE // 4, SIDE // 2
    ImageDraw.Draw(pictures[0]).ellipse((quarter, quarter, quarter + half, quarter + half), fill="red")
    ImageDraw.Draw(pictures[1]).rectangle((quarter, quarter, quarter + half, quarter + half), fill="blue")
    for left in (SIDE // 16, SIDE // 16 + half):
        ImageDraw.Draw(pictures[2]).ellipse(
            (left, quarter, left + 3 * SIDE // 8, quarter + 3 * SIDE // 8), fill="black"
        )
    return pictures


def known_questions(folder: Path) -> list[TileQuestion]:
    """The questions about the pictures in a judge's folder, which are drawn there if they are not yet."""
    path = folder / PICTURE_NAME
    grid = make_grid(known_pictures(), "plain")
    if not path.is_file():
        write_png(grid, path, {})
    boxes = tile_boxes(grid.size, 4, "plain")
    return [
        TileQuestion(f"self-test/{number}", "self-test", known.tile, number, path, boxes[known.tile], known.text)
        for number, known in enumerate(KNOWN)
    ]


def self_test(judge: Judge, answers: Sequence[str], golden: str | None, *, is_official: bool) -> dict[str, Any]:
    """What to think of a judge's answers to `known_questions`, for the results.

    Raises:
        EvaluationError: the judge cannot be trusted.
    """
    says_yes = [judge.is_yes(answer) for answer in answers]
    to_true = [yes for yes, known in zip(says_yes, KNOWN, strict=True) if known.is_yes]
    to_false = [yes for yes, known in zip(says_yes, KNOWN, strict=True) if not known.is_yes]
    can_tell = sum(to_true) > sum(to_false)
    told = {"yes_to_true": f"{sum(to_true)} of {len(to_true)}", "yes_to_false": f"{sum(to_false)} of {len(to_false)}"}
    given = {known.text: answer for known, answer in zip(KNOWN, answers, strict=True)}
    if is_official and not can_tell:
        raise EvaluationError(
            f"self-test: about plain pictures the judge says yes to {told['yes_to_true']} questions where that is true, and to "
            f"{told['yes_to_false']} where it is false: look at its weights, its versions and its device. It said {given}"
        )
    if golden is not None:
        _require_golden(given, Path(golden))
    return {**told, "can_tell": can_tell, ANSWERS: given, "golden": golden}


def _require_golden(given: Mapping[str, str], file: Path) -> None:
    trusted = (read_json(file) or {}).get(ANSWERS)
    if not isinstance(trusted, dict):
        raise EvaluationError(f"dpg.golden={file} is no {SELF_TEST_NAME} of an evaluation with DPG-Bench")
    for question, answer in given.items():
        if answer != trusted.get(question):
            raise EvaluationError(
                f"self-test: to {question!r} the judge says {answer!r}, and in {file} {trusted.get(question)!r}"
            )
