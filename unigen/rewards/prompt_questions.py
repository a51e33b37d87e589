# SPDX-License-Identifier: Apache-2.0
"""Yes-no questions that follow from a prompt: by rule for prompts of GenEval's six kinds, from a file for any other."""

import json
import re
from pathlib import Path

from unigen.data.json_files import numbered_lines
from unigen.errors import DataError

_COLOR = r"(?:red|orange|yellow|green|blue|purple|pink|brown|black|white|gr[ae]y)"
_NUMBER = r"(?:\d+|two|three|four|five|six|seven|eight|nine|ten)"
_RELATION = r"(?:to the )?(?:left of|right of|above|below)|on top of|under|behind|in front of|next to"
_PREFIX = re.compile(r"an? \w+ (?:of|showing) ", re.IGNORECASE)
_ONE = r"an? (?P<{0}>[\w' -]+?)"
_COLORED = rf"an? (?P<{{0}}_color>{_COLOR}) (?P<{{0}}>[\w' -]+?)"

# The kinds of GenEval in the order in which they are tried: the first whose pattern is the whole prompt gives the questions.
_RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "color_attr",
        f"{_COLORED.format('first')} and {_COLORED.format('second')}",
        ("is there {first_color:a} {first}?", "is there {second_color:a} {second}?"),
    ),
    (
        "position",
        f"{_ONE.format('first')} (?P<relation>{_RELATION}) {_ONE.format('second')}",
        ("is there {first:a}?", "is there {second:a}?", "is the {first} {relation} the {second}?"),
    ),
    ("colors", _COLORED.format("first"), ("is there {first:a}?", "is the {first} {first_color}?")),
    ("counting", rf"(?P<count>{_NUMBER}) (?P<things>[\w' -]+)", ("are there exactly {count} {things}?",)),
    (
        "two_object",
        f"{_ONE.format('first')} and {_ONE.format('second')}",
        ("is there {first:a}?", "is there {second:a}?"),
    ),
    ("single_object", _ONE.format("first"), ("is there {first:a}?",)),
)
_PATTERNS = tuple((re.compile(pattern, re.IGNORECASE), questions) for _, pattern, questions in _RULES)


class _Words(str):
    """Words that `{:a}` puts behind their indefinite article."""

    def __format__(self, spec: str) -> str:
        return f"{'an' if self[:1].lower() in 'aeiou' else 'a'} {self}" if spec == "a" else str(self)


def rule_questions(prompt: str) -> list[str]:
    """Questions whose answers are all yes for an image of the prompt; none where it is of no kind of GenEval's."""
    phrase = _PREFIX.sub("", prompt.strip().rstrip("."), count=1)
    for pattern, questions in _PATTERNS:
        found = pattern.fullmatch(phrase)
        if found:
            words = {name: _Words(word) for name, word in found.groupdict().items()}
            return [question.format(**words) for question in questions]
    return []


def read_item_questions(file: Path) -> dict[str, list[str]]:
    """Questions by item id, from JSONL with one `{"item_id", "question"}` or `{"item_id", "questions": [...]}` a line.

    Raises:
        DataError: no such file, or a line of another kind.
    """
    found: dict[str, list[str]] = {}
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the questions in {file}: {error}") from error
    for number, line in numbered_lines(text):
        try:
            entry = json.loads(line)
            questions = entry["questions"] if "questions" in entry else [entry["question"]]
            found.setdefault(str(entry["item_id"]), []).extend(map(str, questions))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file}, line {number} is not a question of an item; write "
                '{"item_id": ..., "questions": [...]} in every line'
            ) from error
    return found
