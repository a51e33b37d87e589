# SPDX-License-Identifier: Apache-2.0
"""What was done, one JSON line an item and one file a rank: what results are made of, and what resuming goes by.

Every record says when its item was done. An item that is done again, perhaps by another rank of a later run, has two records,
and the later one counts, whatever file it is in. Runs over one folder follow each other, so clocks of several machines need to
agree no better than that.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigen.data.manifest import now
from unigen.errors import EvaluationError

ID, ENDED = "item_id", "ended"
"""The keys that name the item of a record, and the time when it was done: UTC, to the millisecond, which sorts as it reads."""


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
        record = {ID: item_id, **fields, ENDED: now("milliseconds")}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


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
                known = records.setdefault(record[ID], record)
                if record.get(ENDED, "") >= known.get(ENDED, ""):
                    records[record[ID]] = record
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError(f"{path}, line {number} is not a record; delete that line to redo it") from error
    return records
