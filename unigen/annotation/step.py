# SPDX-License-Identifier: Apache-2.0
"""One step of annotation: units of work that are done one by one, kept as they get done, and written as one JSONL file.

Beside `FILE` stands `FILE.run/`: `run.json` says what the step was made with, `records-<rank>.jsonl` what is done. The file
itself appears once every unit was tried, without those that failed: they are named, and tried again by the next run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from unigen.data.json_files import write_lines
from unigen.data.ledger import LedgerWriter, read_ledger
from unigen.data.manifest import open_run
from unigen.data.ranks import Ranks
from unigen.errors import DataError

Line = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """A piece of work that is done as a whole or not at all."""

    name: str
    content: Any
    """Whatever the step that made it needs to do it."""


@dataclass(frozen=True)
class Done:
    """A unit with the lines of output that it gave."""

    unit: Unit
    lines: Sequence[Line]


@dataclass(frozen=True)
class Failed:
    """A unit that could not be done, and why."""

    unit: Unit
    reason: str


class Step(Protocol):
    """What a kind of annotation does; how its work is shared, kept and resumed is `run_step`'s."""

    name: str

    def identity(self) -> Mapping[str, Any]:
        """All that the output depends on: inputs, judge, settings."""
        ...

    def notes(self) -> Mapping[str, Any]:
        """What is worth keeping besides, such as the address of a judge."""
        ...

    def units(self) -> Sequence[Unit]:
        """All units, in the order of the output, with names of their own."""
        ...

    def is_there(self, unit: Unit) -> bool:
        """Whether the files of a unit that has a record are still there."""
        ...

    def work(self, units: Sequence[Unit]) -> Iterator[Done | Failed]:
        """Do the units; each result is given as soon as it is there, in any order."""
        ...


class StepWithoutFiles:
    """What most steps have in common: records alone, and nothing to note."""

    def notes(self) -> Mapping[str, Any]:
        return {}

    def is_there(self, unit: Unit) -> bool:
        return True


@dataclass(frozen=True)
class Outcome:
    """What came of a step; on other ranks than the first only the failures."""

    output: Path
    num_units: int
    num_kept: int
    """Units that an earlier run had done."""
    lines: list[Line] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """One line for each unit that failed, those of all ranks."""


def run_step(step: Step, output: Path, ranks: Ranks | None = None) -> Outcome:
    """Do what an earlier run of the same step left undone, and write the output.

    Raises:
        DataError: `output` is a file of another origin, or two units have one name.
        EvaluationError: `output` was made with other settings or from other input.
    """
    ranks = ranks or Ranks.from_environment()
    with ranks.together():
        return _run(step, output, ranks)


def run_folder(output: Path) -> Path:
    """Where the records of an output lie."""
    return output.with_name(f"{output.name}.run")


def _run(step: Step, output: Path, ranks: Ranks) -> Outcome:
    folder = run_folder(output)
    _claim(step, output, folder, ranks)
    units = step.units()
    _require_different_names(step.name, units)
    records = read_ledger(folder)
    num_kept = sum(unit.name in records for unit in units)
    ranks.gather([], at="reading")  # nobody writes before everyone has read
    own = units[ranks.rank :: ranks.world_size]
    pending = [unit for unit in own if unit.name not in records or not step.is_there(unit)]
    writer = LedgerWriter(folder, ranks.rank)
    failures = []
    for result in tqdm(step.work(pending), step.name, len(pending), disable=not ranks.is_first or not pending):
        if isinstance(result, Failed):
            failures.append(f"{step.name}, {result.unit.name}: {result.reason}")
        else:
            writer.append(result.unit.name, {"lines": list(result.lines)})
    failures = ranks.gather(failures, at="the end")
    if not ranks.is_first:
        return Outcome(output, len(units), num_kept, failures=failures)
    records = read_ledger(folder)
    lines = [line for unit in units for line in records.get(unit.name, {}).get("lines", ())]
    write_lines(lines, output)
    return Outcome(output, len(units), num_kept, lines, failures)


def _claim(step: Step, output: Path, folder: Path, ranks: Ranks) -> None:
    """The first rank claims the folder before the others look at it."""
    if output.exists() and not folder.exists():
        raise DataError(f"{output} is there and {folder} is not: another program wrote it; give another --output")
    identity = {"step": step.name, **step.identity()}
    if ranks.is_first:
        open_run(folder, identity, notes=step.notes())
    ranks.gather([], at="the claim of the folder")
    if not ranks.is_first:
        open_run(folder, identity, writes=False)


def _require_different_names(step: str, units: Sequence[Unit]) -> None:
    names: set[str] = set()
    for unit in units:
        if unit.name in names:
            raise DataError(f"{step}: {unit.name!r} is there twice; every item needs an id of its own")
        names.add(unit.name)
