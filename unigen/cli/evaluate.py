# SPDX-License-Identifier: Apache-2.0
"""`unigen evaluate`: benchmarks over one model, on one or more processes, picking up where an earlier call stopped."""

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from unigen.cli import best_of, model_options
from unigen.config.evaluation import UNIFIED_BENCH_METRICS, BestOfNConfig
from unigen.errors import ConfigError

SETTINGS = {
    "seed": "seed",
    "num_images": "num_images",
    "batch_size": "batch_size",
    "guidance_scale": "drawing.guidance_scale",
    "steps": "drawing.steps",
    "temperature": "drawing.temperature",
    "temperature_schedule": "drawing.temperature_schedule",
    "top_k": "drawing.top_k",
    "top_p": "drawing.top_p",
    "negative_prompt": "drawing.negative_prompt",
    "resolution": "drawing.resolution",
    "prompts": "geneval.prompts",
    "lmms_tasks": "lmms.tasks",
    "models": "unified_bench.models",
    "best_of": "best_of_n.num_drawn",
    "keep": "best_of_n.num_kept",
    "verifier": "best_of_n.verifiers",
}
"""Flags that are short for a key of the settings; what is not given leaves the key as the file has it."""
CHOOSING = ("geneval_shapes_cot", "geneval_cot", "dpg_cot")
USED_BY = {
    "prompts": ("geneval", "geneval_cot"),
    "lmms_tasks": ("lmms",),
    "models": ("unified_bench",),
    "best_of": CHOOSING,
    "keep": CHOOSING,
    "verifier": CHOOSING,
}
"""The flags that mean something to a few benchmarks alone."""


def _print_benchmarks(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        from unigen.evaluation.benchmarks import support_table

        click.echo(support_table())
        context.exit()


@click.command(
    help="Score a model. What an earlier call with the same model and settings did is kept and not done again. Runs on "
    "several processes when started by torchrun or accelerate. A benchmark that cannot be run keeps no other from being run. "
    "Exits with 1 if an item failed, with 2 if a benchmark could not be run. KEY=VALUE sets any of "
    "the settings of unigen/config/evaluation.py, over --config."
)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_benchmarks,
    help="Print the benchmarks and the families that each takes, as a table.",
)
@click.option(
    "--benchmarks", required=True, help="Names with commas between them, see --list: geneval_shapes,vqa_shapes."
)
@click.option(
    "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the results."
)
@click.option(
    "--model",
    "checkpoints",
    multiple=True,
    help="A checkpoint's folder, a run's folder, or a name under the data root. Given several times, each has its folder "
    "under --output, and the page and results.json there are over all.",
)
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
@click.option(
    "--released-layout", is_flag=True, help="Also name folders as the released evaluation does, by links to ours."
)
@click.option("--num-images", default=4, show_default=True, type=click.IntRange(min=1), help="Images of each prompt.")
@click.option(
    "--prompts",
    metavar="FILE",
    help="Prompts of geneval in place of its own, such as rewritten ones; the score is named after the file.",
)
@click.option(
    "--lmms-tasks",
    metavar="NAMES",
    callback=lambda _context, _option, names: f"[{names}]",
    help="Tasks of lmms-eval with commas between them.  [those of the READMEs]",
)
@click.option(
    "--models",
    metavar="NAMES",
    callback=lambda _context, _option, names: f"[{names}]",
    help=f"For unified_bench: the encoders that compare, with commas between them. {', '.join(UNIFIED_BENCH_METRICS)} are "
    "the benchmark's own; with fewer there is no overall score.",
)
@model_options.with_options(
    best_of.numbers(
        f"{BestOfNConfig.num_drawn}",
        f"{BestOfNConfig.num_kept}, also with --best-of 5; unigen sample keeps {best_of.KEPT_BY_SAMPLE}",
    )
)
@click.option(
    "--verifier",
    metavar="STYLES",
    callback=lambda _context, _option, names: f"[{names}]",
    help=f"For the benchmarks named ..._cot: how the model rates, {', '.join(best_of.STYLES)}; several with commas between "
    "them, the first of which gives the score.  [think]",
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
    checkpoints: tuple[str, ...],
    images: Path | None,
    config: Path | None,
    data: Path | None,
    allow_partial: bool,
    released_layout: bool,
    data_root: str,
    device: str | None,
    decoding: Any,
    as_json: bool,
    **_settings: Any,
) -> int:
    from unigen.config.load import load_evaluation
    from unigen.data.ranks import Ranks
    from unigen.evaluation.benchmarks import find_benchmarks
    from unigen.evaluation.comparison import labels_of, write_comparison
    from unigen.evaluation.job import Options
    from unigen.evaluation.released_layout import link_released_names
    from unigen.evaluation.run import evaluate

    wanted = find_benchmarks([name.strip() for name in benchmarks.split(",") if name.strip()])
    settings = load_evaluation(config, [*_given_settings(context, [one.name for one in wanted]), *overrides])
    _check_support(wanted, checkpoints, images, data_root)
    ranks = Ranks.from_environment()
    labels = labels_of([*checkpoints] or [str(images)])
    evaluations, outcomes = {}, []
    for model, label in zip(checkpoints or (None,), labels, strict=True):
        options = Options.of(
            settings,
            output=output if len(labels) == 1 else output / label,
            world=data or Path(data_root) / "datasets" / "shapes",
            data_root=Path(data_root),
            decoding=decoding,
            images=images,
            is_partial_allowed=allow_partial,
        )
        pipeline = _open(model, images, data_root, device or ranks.own_device(), decoding)
        outcome = evaluate(pipeline, wanted, options, ranks, _complain)
        outcomes.append(outcome)
        if outcome.results is not None:
            evaluations[label] = outcome.results
            if released_layout:
                link_released_names(wanted, options, outcome.results["manifest"]["model"]["family"])
    if evaluations:
        write_comparison(evaluations, output, writes_json=len(labels) > 1)
        _report(evaluations, output, as_json)
        _complain([line for outcome in outcomes for line in outcome.failures])
    if any(outcome.has_mistake for outcome in outcomes):
        return 2
    return 1 if any(outcome.failures for outcome in outcomes) else 0


def _given_settings(context: click.Context, benchmarks: list[str]) -> list[str]:
    """The flags that were given, as key=value.

    Raises:
        ConfigError: one of them would be without effect.
    """
    given = [name for name in SETTINGS if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    for name in given:
        if name in USED_BY and not set(USED_BY[name]) & set(benchmarks):
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} is for {', '.join(USED_BY[name])}, and none of them is among --benchmarks")
    return [f"{SETTINGS[name]}={context.params[name]}" for name in given]


def _check_support(wanted: list[Any], models: tuple[str, ...], images: Path | None, data_root: str) -> None:
    """That the benchmarks take what is to be scored, before anything of it is loaded."""
    from unigen.evaluation.benchmarks import require_support
    from unigen.evaluation.families import IMAGES, family_of

    if bool(models) == (images is not None):
        raise ConfigError("say what to score: --model DIR, or --images DIR for images drawn elsewhere, and not both")
    for family in [family_of(model, data_root) for model in models] or [IMAGES]:
        require_support(wanted, family)


def _open(model: str | None, images: Path | None, data_root: str, device: str | None, decoding: Any) -> Any:
    from unigen.evaluation.elsewhere import ImageFolder

    if model is None:
        assert images is not None
        if device is not None:
            model_options.check_device(device)
        return ImageFolder(images, device)
    return model_options.load(model, data_root, device, decoding)


def _complain(lines: list[str]) -> None:
    """Say what failed."""
    for line in lines:
        click.echo(f"unigen: error: {' '.join(line.split())}", err=True)


def _report(evaluations: dict[str, Any], output: Path, as_json: bool) -> None:
    """The scores: as JSON, as a list, or for several models as a table."""
    from unigen.evaluation.comparison import markdown_table
    from unigen.evaluation.tables import scores

    (first, *others) = evaluations.values()
    if as_json:
        click.echo(json.dumps({"checkpoints": evaluations} if others else first))
        return
    if others:
        click.echo(markdown_table(evaluations))
    else:
        for score in scores(first):
            click.echo(f"{score.name:<38} {score.text:>9}   {score.interval_text}".rstrip())
    click.echo(f"written to {output / 'results.json'}")
