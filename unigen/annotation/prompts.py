# SPDX-License-Identifier: Apache-2.0
"""Entries that annotation starts from: prompts and questions in JSONL, or prompts as lines of text."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unigen.data.json_files import numbered_lines
from unigen.errors import DataError

Kind = type | tuple[type, ...]
_ID = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class Prompt:
    """What an image is to show. `fields` is the whole entry, for steps and judges that know more than words."""

    id: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def read_prompts(path: Path, limit: int | None = None) -> list[Prompt]:
    """Prompts of a JSONL file with `id` and `prompt`, or of a text file with one prompt a line, which then has its number
    as its id; the first `limit` of them.

    Raises:
        DataError: no such file, an entry without a usable id or prompt, one id twice, or no prompt at all.
    """
    lines = list(numbered_lines(_read(path)))
    is_json = path.suffix in (".jsonl", ".json")
    prompts = [_from_json(path, *line) if is_json else _from_text(index, line[1]) for index, line in enumerate(lines)]
    if not prompts:
        raise DataError(f"{path} holds no prompt")
    _require_different_ids(path, prompts)
    return prompts[:limit]


def read_entries(path: Path, needed: Mapping[str, Kind]) -> list[dict[str, Any]]:
    """The objects of a JSONL file, each with the `needed` keys, whose values are of these types.

    Raises:
        DataError: no such file, or a line that is not such an object.
    """
    return [_entry(path, number, line, needed) for number, line in numbered_lines(_read(path))]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _from_text(index: int, line: str) -> Prompt:
    return Prompt(f"{index:05d}", line.strip(), {"id": f"{index:05d}", "prompt": line.strip()})


def _from_json(path: Path, number: int, line: str) -> Prompt:
    entry = _entry(path, number, line, {"prompt": str})
    name = entry.get("id")
    if isinstance(name, int):
        name = str(name)
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise DataError(
            f"{path}, line {number}: id {name!r} cannot be part of a file name; use letters, digits, . _ + -"
        )
    if not entry["prompt"].strip():
        raise DataError(f"{path}, line {number}: the prompt of {name} is empty")
    return Prompt(name, entry["prompt"].strip(), {**entry, "id": name})


def _entry(path: Path, number: int, line: str, needed: Mapping[str, Kind]) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number} is not JSON: {error}") from error
    for key, kind in needed.items():
        if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
            names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            raise DataError(f"{path}, line {number} has no {key!r} that is a {names}")
    return dict(entry)


def _require_different_ids(path: Path, prompts: Sequence[Prompt]) -> None:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise DataError(f"{path}: the id {prompt.id} is there twice")
        seen.add(prompt.id)
