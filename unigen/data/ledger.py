# SPDX-License-Identifier: Apache-2.0
"""What was done, one JSON line an item and one file a rank: what results are made of, and what resuming goes by."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigen.errors import EvaluationError

ID = "item_id"
"""The key that names the item of a record."""


class LedgerWriter:
    """Appends the records of one rank. A line that an earlier run left unfinished is removed first."""

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"records-{rank}.jsonl"
        if self._path.exists():
            content = self._path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                os.truncate(self._path, len(whole))

    def append(self, item_id: str, fields: Mapping[str, Any]) -> None:
        """Add the record of an item that is done; its files must be there already."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({ID: item_id, **fields}) + "\n")


def read_ledger(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of all ranks by item id; of two for one item the later one. An unfinished last line does not count.

    Raises:
        EvaluationError: a whole line is not a record.
    """
    records: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("records-*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1], start=1):
            try:
                record = json.loads(line)
                records[record[ID]] = record
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError(f"{path}, line {number} is not a record; delete that line to redo it") from error
    return records
