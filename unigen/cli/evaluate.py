# SPDX-License-Identifier: Apache-2.0
"""`unigen evaluate`: benchmarks over one model, on one or more processes, picking up where an earlier call stopped."""

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from unigen.cli import model_options
from unigen.errors import ConfigError

SETTINGS = {
    "seed": "seed",
    "num_images": "num_images",
    "batch_size": "batch_size",
    "guidance_scale": "drawing.guidance_scale",
    "steps": "drawing.steps",
    "temperature": "drawing.temperature",
    "temperature_schedule": "drawing.temperature_schedule",
    "lmms_tasks": "lmms.tasks",
}
"""Flags that are short for a key of the settings; what is not given leaves the key as the file has it."""


@click.command(
    help="Score a model. What an earlier call with the same model and settings did is kept and not done again. Runs on "
    "several processes when started by torchrun or accelerate. Exits with 1 if an item failed. KEY=VALUE sets any of "
    "the settings of unigen/config/evaluation.py, over --config."
)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--benchmarks", required=True, help="Names with commas between them: geneval_shapes,vqa_shapes.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the results."
)
@click.option("--model", help="A checkpoint's folder, a run's folder, or a name under the data root.")
@click.option(
    "--images", type=click.Path(path_type=Path), help="Score the images of this folder, drawn elsewhere, and no model."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="YAML of evaluation settings, or of a training run with an `evaluation` section.",
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of the world of shapes.  [DATA_ROOT/datasets/shapes]"
)
@click.option(
    "--allow-partial", is_flag=True, help="Score what is there though items are missing; results say `partial`."
)
@click.option("--num-images", default=4, show_default=True, type=click.IntRange(min=1), help="Images of each prompt.")
@click.option(
    "--lmms-tasks",
    metavar="NAMES",
    callback=lambda _context, _option, names: f"[{names}]",
    help="Tasks of lmms-eval with commas between them.  [those of the READMEs]",
)
@model_options.with_options(model_options.DRAWING)
@model_options.BATCH_SIZE
@model_options.with_options(model_options.OPTIONS[1:])
@click.pass_context
def command(
    context: click.Context,
    overrides: tuple[str, ...],
    benchmarks: str,
    output: Path,
    model: str | None,
    images: Path | None,
    config: Path | None,
    data: Path | None,
    allow_partial: bool,
    data_root: str,
    device: str | None,
    decoding: Any,
    as_json: bool,
    **_settings: Any,
) -> int:
    from unigen.config.load import load_evaluation
    from unigen.evaluation.benchmarks import find_benchmarks
    from unigen.evaluation.job import Options
    from unigen.evaluation.ranks import Ranks
    from unigen.evaluation.run import evaluate

    wanted = find_benchmarks([name.strip() for name in benchmarks.split(",") if name.strip()])
    settings = load_evaluation(config, [*_given_settings(context), *overrides])
    ranks = Ranks.from_environment()
    pipeline = _open(model, images, wanted, data_root, device or _device_of(ranks.local_rank), decoding)
    options = Options.of(
        settings,
        output=output,
        world=data or Path(data_root) / "datasets" / "shapes",
        data_root=Path(data_root),
        decoding=decoding,
        images=images,
        is_partial_allowed=allow_partial,
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


def _given_settings(context: click.Context) -> list[str]:
    """The flags that were given, as key=value."""
    given = [name for name in SETTINGS if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    return [f"{SETTINGS[name]}={context.params[name]}" for name in given]


def _open(
    model: str | None, images: Path | None, wanted: list[Any], data_root: str, device: str | None, decoding: Any
) -> Any:
    """What is to be scored, after it is known that the benchmarks take it."""
    from unigen.evaluation.benchmarks import require_support
    from unigen.evaluation.elsewhere import ImageFolder
    from unigen.evaluation.families import IMAGES, family_of

    if (model is None) == (images is None):
        raise ConfigError("say what to score: --model DIR, or --images DIR for images drawn elsewhere, and not both")
    if images is not None:
        require_support(wanted, IMAGES)
        return ImageFolder(images)
    assert model is not None
    require_support(wanted, family_of(model, data_root))
    return model_options.load(model, data_root, device, decoding)


def _device_of(local_rank: int) -> str | None:
    """Every process of a machine has its own GPU."""
    import torch

    return f"cuda:{local_rank}" if torch.cuda.is_available() else None


def _print(results: dict[str, Any], output: Path) -> None:
    from unigen.evaluation.tables import scores

    for score in scores(results):
        click.echo(f"{score.name:<38} {score.text:>9}   {score.interval_text}".rstrip())
    click.echo(f"written to {output / 'results.json'}")
