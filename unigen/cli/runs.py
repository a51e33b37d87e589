# SPDX-License-Identifier: Apache-2.0
"""`unigen runs`: what runs there are, in what they differ, how they compare; and what a job script asks of them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unigen.runs.comparison import Comparison, Difference
    from unigen.runs.folder import Run

RUN = click.argument("run", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(name="runs")
def command() -> None:
    """Look at run folders: list them, say in what two differ, compare metrics and scores."""


@command.command(name="list")
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@JSON
def list_runs(folder: Path, as_json: bool) -> int:
    """The runs in FOLDER (default: here): stage, step, last loss, speed, state, time since the last sign of life.

    States: running, done, stopped (told to, can go on), failed (with the reason), lost (broke off without a word).
    Exits with 1 if a run's folder is damaged.
    """
    from unigen.errors import DataError
    from unigen.runs.folder import Run, find_runs

    rows, damaged = [], []
    for path in find_runs(folder):
        try:
            rows.append(_describe(Run.read(path), folder))
        except DataError as error:
            damaged.append(f"unigen: error: {' '.join(str(error).split())}")
    if as_json:
        click.echo(json.dumps({"runs": rows}))
    elif rows:
        click.echo(_table(["name", "stage", "step", "loss", "tokens/s", "state", "age"], [_row(row) for row in rows]))
    else:
        click.echo(f"no runs in {folder}")
    for line in damaged:
        click.echo(line, err=True)
    return 1 if damaged else 0


@command.command()
@click.argument("first", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("second", metavar="RUN", type=click.Path(path_type=Path))
@JSON
def diff(first: Path, second: Path, as_json: bool) -> None:
    """In what two runs differ: keys of their resolved configurations, commit and package versions."""
    from unigen.runs.comparison import diff_runs, short_names
    from unigen.runs.folder import Run

    config, environment = diff_runs(Run.read(first), Run.read(second))
    if as_json:
        parts = {"config": config, "environment": environment}
        click.echo(
            json.dumps({name: {one.key: [one.first, one.second] for one in part} for name, part in parts.items()})
        )
        return
    names = short_names([first, second])
    for title, part in (("configuration", config), ("environment", environment)):
        click.echo(_differences(title, names, part))


@command.command()
@click.argument("paths", metavar="RUN RUN ...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--metric", "metrics", multiple=True, help="Metric to compare, repeatable.  [losses, gradient norm, speed]"
)
@click.option("--rows", default=10, show_default=True, type=click.IntRange(min=1), help="Most steps to show.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write the curves to FILE.png or FILE.html."
)
@JSON
def compare(paths: tuple[Path, ...], metrics: tuple[str, ...], rows: int, plot: Path | None, as_json: bool) -> None:
    """Metrics of runs at the steps that all of them logged, and their benchmark scores with 95% intervals.

    Scores are read from the newest results.json in a run's folder or right below it, as `unigen evaluate --output RUN/evaluation`
    writes it.
    """
    from unigen.runs.comparison import compare_runs
    from unigen.runs.folder import Run

    if plot is not None:
        from unigen.runs.plot import check_suffix, write_plot

        check_suffix(plot)
    runs = [Run.read(path) for path in paths]
    comparison = compare_runs(runs, metrics, rows)
    if plot is not None:
        write_plot(comparison, runs, plot)
    click.echo(json.dumps(comparison.as_dict()) if as_json else _comparison(comparison))


@command.command()
@click.argument("config_file", metavar="CONFIG.yaml", type=click.Path())
@click.argument("overrides", metavar="[key=value ...]", nargs=-1)
def folder(config_file: str, overrides: tuple[str, ...]) -> None:
    """Print where the run of CONFIG.yaml goes: its experiment.output_dir. For job scripts; checks the configuration."""
    from unigen.config.load import load_config

    click.echo(load_config(config_file, overrides).experiment.output_dir)


@command.command()
@RUN
@click.option("--exit-code", required=True, type=int, help="How the job ended.")
@click.option("--max-failures", default=3, show_default=True, help="Ends in a row without a newer checkpoint.")
def requeue(run: Path, exit_code: int, max_failures: int) -> int:
    """Say whether a job that worked on RUN shall be started again, and why. For job scripts.

    Exits with 0 if so, else with 1: a run that is done, a mistake that would only be repeated, too many ends in a row that
    brought no newer checkpoint.
    """
    from unigen.runs.requeue import judge

    verdict = judge(run, exit_code, max_failures)
    click.echo(f"{'requeue' if verdict.requeue else 'end'}: {verdict.reason}")
    return 0 if verdict.requeue else 1


def _describe(run: "Run", folder: Path) -> dict[str, Any]:
    is_same = run.path.resolve() == folder.resolve()
    return {
        "name": run.path.resolve().name if is_same else str(run.path.relative_to(folder)),
        "path": str(run.path),
        "stage": run.stage,
        "step": run.step,
        "num_steps": run.num_steps,
        "loss": next((run.last(name) for name in run.losses), None),
        "tokens_per_second": run.last("throughput/tokens_per_second"),
        "state": run.state,
        "error": run.status.error if run.status else None,
        "age_seconds": round(run.silent_seconds, 1),
    }


def _row(run: dict[str, Any]) -> list[str]:
    error = f": {run['error']}" if run["error"] else ""
    return [
        run["name"],
        run["stage"],
        f"{run['step']} of {run['num_steps'] or '?'}",
        _number(run["loss"]),
        _number(run["tokens_per_second"]),
        f"{run['state']}{error}"[:60],
        _age(run["age_seconds"]),
    ]


def _differences(title: str, names: Sequence[str], found: "Sequence[Difference]") -> str:
    if not found:
        return f"{title}: the same"
    return _table([title, *names], [[one.key, _value(one.first), _value(one.second)] for one in found])


def _comparison(comparison: "Comparison") -> str:
    parts = []
    for metric, rows in comparison.metrics.items():
        cells = [[str(step), *map(_number, row)] for step, row in zip(comparison.steps, rows, strict=True)]
        parts.append(f"{metric}\n{_table(['step', *comparison.names], cells)}")
    if comparison.scores:
        cells = [
            [
                f"{score.group}: {score.name}",
                *(f"{one.text} {one.interval_text}".strip() if one else "-" for one in row),
            ]
            for score, row in comparison.scores
        ]
        parts.append(_table(["score", *comparison.names], cells))
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
