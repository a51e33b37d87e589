# SPDX-License-Identifier: Apache-2.0
"""`unigen study`: the reports of comparisons over several stages and training seeds."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from unigen.cli.model_options import with_options

OPTIONS = (
    click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False)),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object, that of report.json."),
)


@click.group(name="study", help="Write the report of a comparison over stages and training seeds.")
def command() -> None:
    pass


@command.command(
    help="What preference optimisation and Best-of-N bring: report.json and report.html of the folder DIR that "
    "scripts/reproduce_shapes.sh filled."
)
@with_options(OPTIONS)
def alignment(folder: Path, as_json: bool) -> None:
    from unigen.evaluation.alignment_study import PAGE_NAME, write_alignment_report

    summary = write_alignment_report(folder)
    differences = (
        f"{name:<28} {found['mean']:+.3f}   {found['low']:+.3f} – {found['high']:+.3f}"
        for name, found in summary["paired"].items()
    )
    _say(summary, differences, folder / PAGE_NAME, as_json)


@command.command(
    help="What learning from rewards brings to UAE: report.json and report.html of the folder DIR that "
    "scripts/reproduce_uae_shapes.sh filled."
)
@with_options(OPTIONS)
def uae(folder: Path, as_json: bool) -> None:
    from unigen.evaluation.uae_study.report import PAGE_NAME, write_uae_report

    summary = write_uae_report(folder)
    findings = (f"{one['title']}. {one['text']}" for one in summary["findings"])
    _say(summary, findings, folder / PAGE_NAME, as_json)


@command.command(
    help="Where a UniFork should fork: report.json and report.html of the folder DIR that "
    "scripts/reproduce_unifork_shapes.sh filled."
)
@with_options(OPTIONS)
def unifork(folder: Path, as_json: bool) -> None:
    from unigen.evaluation.unifork_study.report import PAGE_NAME, write_unifork_report

    summary = write_unifork_report(folder)
    findings = (f"{one['title']}. {one['text']}" for one in summary["findings"])
    _say(summary, findings, folder / PAGE_NAME, as_json)


def _say(summary: dict[str, Any], lines: Iterable[str], page: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary))
        return
    for line in lines:
        click.echo(line)
    click.echo(f"report: {page.resolve()}")
