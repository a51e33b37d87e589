# SPDX-License-Identifier: Apache-2.0
"""A step keeps what is done, goes on there, and never mixes two runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from unigen.annotation.step import Done, Failed, StepWithoutFiles, Unit, run_folder, run_step
from unigen.data.ranks import Ranks
from unigen.errors import DataError, EvaluationError


class Doubling(StepWithoutFiles):
    """Gives two lines a unit, in reverse order; `stop_after` breaks off, `bad` fail. `worked` tells what was done."""

    name = "doubling"

    def __init__(
        self, count: int = 5, stop_after: int | None = None, bad: Sequence[str] = (), setting: int = 0
    ) -> None:
        self._count, self._stop_after, self._bad, self._setting = count, stop_after, bad, setting
        self.worked: list[str] = []

    def identity(self) -> Mapping[str, Any]:
        return {"setting": self._setting}

    def units(self) -> Sequence[Unit]:
        return [Unit(f"u{number}", number) for number in range(self._count)]

    def work(self, units: Sequence[Unit]) -> Iterator[Done | Failed]:
        for unit in reversed(units):
            if len(self.worked) == self._stop_after:
                raise KeyboardInterrupt
            self.worked.append(unit.name)
            if unit.name in self._bad:
                yield Failed(unit, "it is bad")
            else:
                yield Done(unit, [{"n": unit.content}, {"n": unit.content, "twice": True}])


def numbers(output: Path) -> list[int]:
    return [json.loads(line)["n"] for line in output.read_text().splitlines()]


def test_lines_stand_in_the_order_of_the_units_whatever_the_order_of_the_work(tmp_path: Path) -> None:
    outcome = run_step(Doubling(), tmp_path / "out.jsonl")
    assert numbers(tmp_path / "out.jsonl") == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (outcome.num_units, outcome.num_kept, outcome.failures) == (5, 0, [])


def test_a_run_that_broke_off_goes_on_with_what_is_missing_the_cut_line_included(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_step(Doubling(stop_after=3), output)
    assert not output.exists()
    records = run_folder(output) / "records-0.jsonl"
    records.write_bytes(records.read_bytes()[:-4])  # as a kill in the middle of a write leaves it
    again = Doubling()
    outcome = run_step(again, output)
    assert again.worked == ["u2", "u1", "u0"]
    assert outcome.num_kept == 2
    assert numbers(output) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    run_step(Doubling(stop_after=0), output)
    assert numbers(output) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_failed_units_are_named_and_are_the_only_ones_tried_again(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    outcome = run_step(Doubling(bad=["u1", "u4"]), output)
    assert outcome.failures == ["doubling, u4: it is bad", "doubling, u1: it is bad"]
    assert numbers(output) == [0, 0, 2, 2, 3, 3]
    again = Doubling()
    run_step(again, output)
    assert again.worked == ["u4", "u1"]
    assert numbers(output) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_ranks_share_the_units_and_another_number_of_ranks_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    halves = [Doubling(), Doubling()]
    for rank, half in reversed(list(enumerate(halves))):
        lonely = Ranks(rank=rank, world_size=2)
        object.__setattr__(lonely, "gather", lambda lines, at: lines)  # one after the other here, so none to wait for
        object.__setattr__(lonely, "together", Ranks().together)
        run_step(half, output, lonely)
    assert [sorted(half.worked) for half in halves] == [["u0", "u2", "u4"], ["u1", "u3"]]
    assert numbers(output) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    alone = Doubling(count=6)
    run_step(alone, output)
    assert alone.worked == ["u5"]


def test_other_settings_are_refused_with_what_differs(tmp_path: Path) -> None:
    run_step(Doubling(), tmp_path / "out.jsonl")
    with pytest.raises(EvaluationError, match=r"setting was 0 and is now 1"):
        run_step(Doubling(setting=1), tmp_path / "out.jsonl")


def test_a_file_of_another_origin_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("precious\n")
    with pytest.raises(DataError, match="another program wrote it"):
        run_step(Doubling(), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "precious\n"


def test_two_units_of_one_name_are_refused(tmp_path: Path) -> None:
    class Twice(Doubling):
        def units(self) -> Sequence[Unit]:
            return [Unit("same", 0), Unit("same", 1)]

    with pytest.raises(DataError, match="'same' is there twice"):
        run_step(Twice(), tmp_path / "out.jsonl")
