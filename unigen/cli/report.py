# SPDX-License-Identifier: Apache-2.0
"""`unigen report`: the report of a run's folder, as JSON and as one page."""

import json
from pathlib import Path

import click

from unigen.errors import ConfigError


@click.command(
    help="Write report.json and a self-contained report.html for the folder of a run: its stages' losses and cost, its "
    "evaluation's scores, drawings and answers. Or, with --evaluation, results.json, results.md and report.html of several "
    "evaluations side by side."
)
@click.option("--run", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run.")
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The --output of `unigen evaluate`; may be given several times.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Where to put the page of a run, or the folder of a comparison.  [RUN/report.html]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, that of the JSON file.")
def command(run: Path | None, evaluations: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    if (run is None) == (not evaluations):
        raise ConfigError("say what to report on: --run DIR, or --evaluation DIR for each evaluation to compare")
    if run is not None:
        from unigen.evaluation.report import PAGE_NAME, write_report

        content, page = write_report(run, output), output or run / PAGE_NAME
    else:
        from unigen.evaluation.comparison import read_evaluations, write_comparison

        if output is None:
            raise ConfigError("--evaluation needs --output DIR, the folder of the comparison")
        found = read_evaluations(evaluations)
        content, page = {"checkpoints": found}, write_comparison(found, output)
    click.echo(json.dumps(content) if as_json else f"report: {page.resolve()}")
