# SPDX-License-Identifier: Apache-2.0
"""JSON and JSONL files that are whole or absent."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unigen.data.whole_files import whole_file
from unigen.errors import EvaluationError


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file, beside and renamed, so that a half-written file is never there."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no file.

    Raises:
        EvaluationError: the file holds something else.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvaluationError(f"{path} is not JSON: {error}; delete it") from error
    if not isinstance(content, dict):
        raise EvaluationError(f"{path} holds a {type(content).__name__}, not a JSON object; delete it")
    return content


def write_lines(lines: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a JSONL file, beside and renamed; in ASCII, so that every program cuts it at the ends of lines alone."""
    with whole_file(path) as partial:
        partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of JSONL that are not blank, with their numbers from 1. A string in JSON may hold characters at which
    `str.splitlines` would cut (U+2028, U+0085)."""
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
