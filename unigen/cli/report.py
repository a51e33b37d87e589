# SPDX-License-Identifier: Apache-2.0
"""`unigen report`: the report of a run's folder, as JSON and as one page."""

import json
from pathlib import Path

import click


@click.command(
    help="Write report.json and a self-contained report.html for the folder of a run: its stages' losses and cost, its "
    "evaluation's scores, drawings and answers."
)
@click.option("--run", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the run.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to put the page.  [RUN/report.html]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, that of report.json.")
def command(run: Path, output: Path | None, as_json: bool) -> None:
    from unigen.evaluation.report import PAGE_NAME, write_report

    summary = write_report(run, output)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        click.echo(f"report: {(output or run / PAGE_NAME).resolve()}")
