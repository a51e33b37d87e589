# SPDX-License-Identifier: Apache-2.0
"""Runs beside each other: what they were told, what they measured at the same steps, how they score."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.errors import DataError
from unigen.evaluation.tables import Score, score_table
from unigen.runs.folder import Run

ABSENT = "-"
DEFAULT_METRICS = ("training/gradient_norm", "throughput/tokens_per_second")
"""Compared besides the losses where nothing else is asked for."""


@dataclass(frozen=True)
class Difference:
    """One thing in which two runs are not the same; ABSENT where a run does not have it."""

    key: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Comparison:
    """Metrics of several runs at the steps that all of them logged, and their scores."""

    names: Sequence[str]
    steps: Sequence[int]
    metrics: Mapping[str, Sequence[Sequence[float | None]]]
    """By name: a row for every step, a value for every run."""
    scores: Sequence[tuple[Score, Sequence[Score | None]]]
    """One example of every score, and that of each run."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "runs": list(self.names),
            "steps": list(self.steps),
            "metrics": {name: [list(row) for row in rows] for name, rows in self.metrics.items()},
            "scores": [
                {"group": one.group, "name": one.name, "unit": one.unit, "values": [_score(found) for found in row]}
                for one, row in self.scores
            ],
        }


def diff_runs(first: Run, second: Run) -> tuple[list[Difference], list[Difference]]:
    """What differs in the resolved configurations, and in the commits and packages that they ran on."""
    return _differences(dict(leaves(first.config)), dict(leaves(second.config))), _differences(
        first.environment, second.environment
    )


def compare_runs(runs: Sequence[Run], metrics: Sequence[str] = (), max_rows: int = 10) -> Comparison:
    """Compare metrics (the losses and DEFAULT_METRICS if none are named) at up to `max_rows` common steps, evenly spaced, the
    last among them.

    Raises:
        DataError: a metric that no run has, or no step that all runs logged and no score either.
    """
    known = list(dict.fromkeys(name for run in runs for line in run.lines for name in line if name != "step"))
    for name in metrics:
        if name not in known:
            raise DataError(f"no run has the metric {name}; there are {', '.join(known) or 'none'}")
    losses = list(dict.fromkeys(name for run in runs for name in run.losses))
    wanted = list(metrics) or [*losses, *(name for name in DEFAULT_METRICS if name in known)]
    steps = _thin(_common_steps(runs), max_rows)
    names = short_names([run.path for run in runs])
    scores = score_table(dict(zip(names, [run.results for run in runs], strict=True)))
    if not steps and not scores:
        logged = "; ".join(f"{name}: {_span(run)}" for name, run in zip(names, runs, strict=True))
        raise DataError(f"the runs have no logged step in common and no scores ({logged}); log them at the same steps")
    table = {name: [[run.curve(name).get(step) for run in runs] for step in steps] for name in wanted}
    return Comparison(names, steps, table, scores)


def short_names(paths: Sequence[Path]) -> list[str]:
    """The paths without the folders that all of them begin with."""
    parts = [path.resolve().parts for path in paths]
    shared = 0
    while all(len(one) > shared + 1 for one in parts) and len({one[shared] for one in parts}) == 1:
        shared += 1
    return ["/".join(one[shared:]) for one in parts]


def leaves(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in nested mappings; an empty mapping is a value."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    keys = dict.fromkeys([*first, *second])
    found = [Difference(key, first.get(key, ABSENT), second.get(key, ABSENT)) for key in keys]
    return [one for one in found if one.first != one.second]


def _common_steps(runs: Sequence[Run]) -> list[int]:
    return sorted(set.intersection(*({int(line["step"]) for line in run.lines} for run in runs)))


def _thin(steps: Sequence[int], count: int) -> list[int]:
    if len(steps) <= count:
        return list(steps)
    return [steps[round((place + 1) * len(steps) / count) - 1] for place in range(count)]


def _span(run: Run) -> str:
    return f"{len(run.lines)} lines up to step {int(run.lines[-1]['step'])}" if run.lines else "no metrics"


def _score(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else {"value": score.value, "interval": score.interval}
