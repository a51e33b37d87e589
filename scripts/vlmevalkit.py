# SPDX-License-Identifier: Apache-2.0
"""Usage: python scripts/vlmevalkit.py --vlmevalkit CHECKOUT --model DIR --data MMBench_DEV_EN --output DIR [-- for run.py].

Runs a checkout of VLMEvalKit over a checkpoint of ours. Start it by torchrun for several GPUs.
"""

import sys
from pathlib import Path
from typing import Any

import click

from unigen.cli import model_options
from unigen.errors import UnigenError


@click.command(help="Run VLMEvalKit over a checkpoint. What stands after -- goes to its run.py as it is.")
@click.option("--vlmevalkit", required=True, type=click.Path(path_type=Path), help="A checkout of VLMEvalKit.")
@click.option("--data", required=True, multiple=True, help="A data set of VLMEvalKit; may be given again.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder of the results (its work-dir).")
@click.option("--max-new-tokens", default=512, show_default=True, type=click.IntRange(min=1), help="Of an answer.")
@model_options.with_options(model_options.OPTIONS[:-1])
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    vlmevalkit: Path,
    data: tuple[str, ...],
    output: Path,
    max_new_tokens: int,
    model: str,
    data_root: str,
    device: str | None,
    decoding: Any,
    arguments: tuple[str, ...],
) -> None:
    from unigen.data.ranks import Ranks
    from unigen.evaluation.vlmevalkit import run_vlmevalkit

    pipeline = model_options.load(model, data_root, device or Ranks.from_environment().own_device(), decoding)
    click.echo(f"written to {run_vlmevalkit(vlmevalkit, pipeline, data, output, arguments, max_new_tokens)}")


if __name__ == "__main__":
    try:
        command()
    except UnigenError as error:
        click.echo(f"unigen: error: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
