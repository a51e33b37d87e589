# SPDX-License-Identifier: Apache-2.0
"""The records of a benchmark's items: the source of every score."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unigen.data.ledger import LedgerWriter, read_ledger
from unigen.errors import EvaluationError
from unigen.evaluation.items import Item


class RecordWriter:
    """Appends the records of one rank."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._ledger = LedgerWriter(folder, rank)

    def append(self, item: Item, fields: Mapping[str, Any]) -> None:
        """Add the record of an item that is done; its files must be there already."""
        self._ledger.append(item.item_id, {"seed": item.seed, **fields})


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of all ranks by item id, see `read_ledger`."""
    return read_ledger(folder)


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
