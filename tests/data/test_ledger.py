# SPDX-License-Identifier: Apache-2.0
"""Of two records of one item the later one counts, whichever rank wrote it."""

import json
from pathlib import Path

import pytest

from unigen.data import ledger
from unigen.data.ledger import LedgerWriter, read_ledger


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the clock says next."""
    times: list[str] = []
    monkeypatch.setattr(ledger, "now", lambda precision: times.pop(0))
    return times


def test_an_item_done_again_by_a_lower_rank_has_the_record_of_that_rank(clock: list[str], tmp_path: Path) -> None:
    clock += ["2026-01-01T10:00:00.999+00:00", "2026-01-01T10:00:01.000+00:00", "2026-01-01T09:59:59.000+00:00"]
    LedgerWriter(tmp_path, 10).append("a", {"answer": "of ten ranks"})
    LedgerWriter(tmp_path, 0).append("a", {"answer": "of one rank, later"})
    LedgerWriter(tmp_path, 2).append("a", {"answer": "of three ranks, before both"})
    assert read_ledger(tmp_path)["a"]["answer"] == "of one rank, later"


def test_of_two_at_one_time_and_of_two_without_a_time_the_last_line_counts(clock: list[str], tmp_path: Path) -> None:
    clock += ["2026-01-01T10:00:00.000+00:00"] * 2
    for answer in ("first", "second"):
        LedgerWriter(tmp_path, 0).append("a", {"answer": answer})
    assert read_ledger(tmp_path)["a"]["answer"] == "second"
    lines = [json.dumps({"item_id": "b", "answer": answer}) for answer in ("first", "second")]
    (tmp_path / "records-1.jsonl").write_text("\n".join([*lines, lines[0].replace("b", "a")]) + "\n")
    assert read_ledger(tmp_path)["b"]["answer"] == "second"
    assert read_ledger(tmp_path)["a"]["answer"] == "second", "a record of before there were times is older than any"


def test_records_say_when_their_items_were_done(tmp_path: Path) -> None:
    LedgerWriter(tmp_path, 0).append("a", {})
    LedgerWriter(tmp_path, 1).append("b", {})
    records = read_ledger(tmp_path)
    assert len(records["a"]["ended"]) == len("2026-01-01T10:00:00.000+00:00")
    assert records["a"]["ended"] <= records["b"]["ended"]
