# SPDX-License-Identifier: Apache-2.0
"""What was done, one JSON line an item and one file a rank: the source of every score, and what resuming goes by."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unigen.errors import EvaluationError
from unigen.evaluation.items import Item


class RecordWriter:
    """Appends the records of one rank. A line that an earlier run left unfinished is removed first."""

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"records-{rank}.jsonl"
        if self._path.exists():
            content = self._path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                os.truncate(self._path, len(whole))

    def append(self, item: Item, fields: Mapping[str, Any]) -> None:
        """Add the record of an item that is done; its files must be there already."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"item_id": item.item_id, "seed": item.seed, **fields}) + "\n")


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of all ranks by item id; of two for one item the later one. An unfinished last line does not count.

    Raises:
        EvaluationError: a whole line is not a record.
    """
    records: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("records-*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1], start=1):
            try:
                record = json.loads(line)
                records[record["item_id"]] = record
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError(f"{path}, line {number} is not a record; delete that line to redo it") from error
    return records


def require_complete(
    name: str, items: Sequence[Item], records: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The records of exactly these items, in order.

    Raises:
        EvaluationError: an item has no record, or a record has no item.
    """
    missing = [item.item_id for item in items if item.item_id not in records]
    if missing:
        raise EvaluationError(
            f"{name}: {len(missing)} of {len(items)} items are not done (first {missing[0]}); run the same command again"
        )
    if len(records) != len(items):
        raise EvaluationError(
            f"{name}: {len(records)} records for {len(items)} items; give another --output or delete the folder"
        )
    return [dict(records[item.item_id]) for item in items]


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file, beside and renamed, so that a half-written file is never there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


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
