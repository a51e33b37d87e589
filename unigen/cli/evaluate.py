# SPDX-License-Identifier: Apache-2.0
"""`unigen evaluate`: benchmarks over one model, on one or more processes, picking up where an earlier call stopped."""

import json
from pathlib import Path
from typing import Any

import click

from unigen.cli import model_options


@click.command(
    help="Score a model. What an earlier call with the same model and settings did is kept and not done again. Runs on "
    "several processes when started by torchrun or accelerate. Exits with 1 if an item failed."
)
@click.option("--benchmarks", required=True, help="Names with commas between them: geneval_shapes,vqa_shapes.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the results."
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of the world of shapes.  [DATA_ROOT/datasets/shapes]"
)
@click.option("--num-images", default=4, show_default=True, type=click.IntRange(min=1), help="Images of each prompt.")
@model_options.with_options(model_options.DRAWING)
@model_options.BATCH_SIZE
@model_options.with_options(model_options.OPTIONS)
def command(
    benchmarks: str,
    output: Path,
    data: Path | None,
    num_images: int,
    seed: int,
    batch_size: int,
    model: str,
    data_root: str,
    device: str | None,
    decoding: Any,
    as_json: bool,
    **drawing: Any,
) -> int:
    from unigen.evaluation.benchmarks import find_benchmarks
    from unigen.evaluation.job import Options
    from unigen.evaluation.ranks import Ranks
    from unigen.evaluation.run import evaluate

    wanted = find_benchmarks([name.strip() for name in benchmarks.split(",") if name.strip()])
    ranks = Ranks.from_environment()
    pipeline = model_options.load(model, data_root, device or _device_of(ranks.local_rank), decoding)
    options = Options(
        output=output,
        world=data or Path(data_root) / "datasets" / "shapes",
        seed=seed,
        num_images=num_images,
        batch_size=batch_size,
        drawing=model_options.given(**drawing),
    )
    outcome = evaluate(pipeline, wanted, options, ranks)
    if outcome.results is not None:
        for failure in outcome.failures:
            click.echo(f"unigen: error: {' '.join(failure.split())}", err=True)
        if as_json:
            click.echo(json.dumps(outcome.results))
        else:
            _print(outcome.results, output)
    return 1 if outcome.failures else 0


def _device_of(local_rank: int) -> str | None:
    """Every process of a machine has its own GPU."""
    import torch

    return f"cuda:{local_rank}" if torch.cuda.is_available() else None


def _print(results: dict[str, Any], output: Path) -> None:
    from unigen.evaluation.tables import scores

    for score in scores(results):
        click.echo(f"{score.name:<38} {score.text:>9}   {score.interval_text}".rstrip())
    click.echo(f"written to {output / 'results.json'}")
