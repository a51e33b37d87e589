# SPDX-License-Identifier: Apache-2.0
"""Unified-Bench's commands over two folders, by the names and flags of UAE's README and of its scripts, in dashes or underscores;
`scripts/unified_bench/` starts them."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from unigen.cli import model_options
from unigen.cli.unifork_scripts import CONTEXT, FILE, FOLDER
from unigen.config.evaluation import UNIFIED_BENCH_METRICS, UnifiedBenchConfig
from unigen.config.policy import PUBLISHED_ENCODERS
from unigen.errors import ConfigError

OPTIONS = (
    click.option(
        "--ref-path", "--ref-image-path", "originals", required=True, type=FOLDER, help="The original images."
    ),
    click.option(
        "--gen-path", "--gen-image-path", "generated", required=True, type=FOLDER, help="What was drawn of them."
    ),
    click.option(
        "--output-file",
        "--output",
        "output",
        required=True,
        type=FILE,
        help="JSON to write; NAME.manifest.json beside it says which encoders, and how sure the means are.",
    ),
    click.option(
        "--allow-missing", is_flag=True, help="End with 0 though originals have no partner or cannot be compared."
    ),
    click.option("--data-root", default="unigen_data", show_default=True, help="Where checkpoints are kept."),
    click.option("--device", help="cpu, cuda, cuda:1, ...  [the GPU if there is one]"),
    click.option("--batch-size", default=16, show_default=True, type=click.IntRange(min=1), help="Pairs at once."),
    click.option("--json", "as_json", is_flag=True, help="Print the result file's JSON."),
)


@click.command(
    context_settings=CONTEXT,
    help="Compare the images of two folders by Unified-Bench's four encoders. An image's partner has its file name, its name up "
    "to the suffix, or that with recon_ before it.",
)
@model_options.with_options(OPTIONS)
@click.option(
    "--models",
    default=",".join(UNIFIED_BENCH_METRICS),
    show_default=True,
    help="Names with commas between them; with fewer there is no overall score.",
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="NAME=DIR",
    help="Where an encoder lies, as given or under DATA_ROOT/checkpoints; again for another.  "
    f"[{', '.join(PUBLISHED_ENCODERS[name] for name in UNIFIED_BENCH_METRICS)}]",
)
def score_i2i(models: str, encoders: tuple[str, ...], **given: Any) -> None:
    _compare([name.strip() for name in models.split(",") if name.strip()], encoders, **given)


def of_one_encoder(name: str) -> click.Command:
    """The command that compares by this encoder alone."""

    @click.command(
        name=name,
        context_settings=CONTEXT,
        help=f"Compare the images of two folders by {name} alone; see Score_i2i.py.",
    )
    @model_options.with_options(OPTIONS)
    @click.option(
        "--model-path",
        default=PUBLISHED_ENCODERS[name],
        show_default=True,
        help="The encoder's folder, as given or under DATA_ROOT/checkpoints.",
    )
    def command(model_path: str, **given: Any) -> None:
        _compare([name], [f"{name}={model_path}"], **given)

    return command


def _compare(
    names: list[str],
    folders: tuple[str, ...] | list[str],
    *,
    originals: Path,
    generated: Path,
    output: Path,
    allow_missing: bool,
    data_root: str,
    device: str | None,
    batch_size: int,
    as_json: bool,
) -> None:
    """Compare, write, say what came out; ends the process with 1 where something is missing that may not be."""
    from unigen.data.ranks import Ranks
    from unigen.evaluation.unified_bench.encoders import choose_encoders
    from unigen.evaluation.unified_bench.folders import compare_folders, write_comparison

    encoders = choose_encoders(names, _known(folders))
    chosen = device or Ranks.from_environment().own_device()
    model_options.check_device(chosen)
    found = compare_folders(
        originals, generated, encoders, data_root=Path(data_root), device=chosen, batch_size=batch_size
    )
    manifest = write_comparison(found, output, originals, generated)
    click.echo(json.dumps(found.result()) if as_json else _table(found.summary, output, manifest))
    for line in found.failures:
        click.echo(f"unigen: error: not compared: {line}", err=True)
    if found.failures:
        click.echo(f"unigen: error: {len(found.failures)} of {len(found.matches)} originals are in no mean", err=True)
        if not allow_missing:
            sys.exit(1)


def _known(folders: tuple[str, ...] | list[str]) -> dict[str, Any]:
    """The published encoders, those that are given by name in their folders."""
    from dataclasses import replace

    known = dict(UnifiedBenchConfig().encoders)
    for given in folders:
        name, is_pair, folder = given.partition("=")
        if not is_pair or name not in known:
            raise ConfigError(f"--encoder {given}: give NAME=DIR, with a NAME out of {', '.join(known)}")
        known[name] = replace(known[name], model=folder)
    return known


def _table(summary: Any, output: Path, manifest: Path) -> str:
    lines = [
        f"{name:<10} {one['mean']:.4f}   {one['low']:.4f} – {one['high']:.4f}"
        for name, one in summary["similarity"].items()
    ]
    if "overall" in summary:
        low, high = summary["interval"]
        lines.append(f"{'overall':<10} {summary['overall']:.2f}    {low:.2f} – {high:.2f}   / 100")
    return "\n".join([*lines, f"written to {output}, and to {manifest} how it came about"])
