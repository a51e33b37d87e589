# SPDX-License-Identifier: Apache-2.0
"""`unigen data`: write the shapes world, look at a configuration's rows."""

import json
from functools import partial
from pathlib import Path

import click

from unigen.config.load import load_config


@click.group(name="data")
def command() -> None:
    """Write the shapes world; look at the rows that a configuration makes."""


@command.command()
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--seed", default=0, show_default=True, help="Seed of the whole world.")
@click.option("--num-images", default=20_000, show_default=True, help="Images with a short and a long caption.")
@click.option("--num-question-images", default=6_000, show_default=True, help="Images with conversations.")
@click.option("--resolution", default=32, show_default=True, help="Side of the images in pixels.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def shapes(output: Path, seed: int, num_images: int, num_question_images: int, resolution: int, as_json: bool) -> None:
    """Write the world of shapes: shards, conversations, text, benchmarks and a text tokenizer."""
    from unigen.data.shapes.export import WorldSize, write_world

    size = WorldSize(resolution=resolution, num_images=num_images, num_question_images=num_question_images)
    manifest = write_world(output, seed=seed, size=size)
    click.echo(json.dumps(manifest) if as_json else f"the world of shapes lies in {output}")


@command.command(name="shapes-processor")
@click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option("--resolution", default=32, show_default=True, help="Side of the images in pixels.")
@click.option(
    "--patch-size", default=4, show_default=True, help="Of the vision tower of configs/models/shapes-qwen2-vl."
)
def shapes_processor(output: Path, resolution: int, patch_size: int) -> None:
    """Write what puts images and words before a small UAE: a text tokenizer, a chat template and an image processor."""
    from unigen.data.shapes import processor

    processor.shapes_processor(side=resolution, patch_size=patch_size).save_pretrained(output)
    click.echo(f"wrote {output}")


@command.command()
@click.argument("config_file", metavar="CONFIG.yaml", type=click.Path())
@click.argument("overrides", metavar="[key=value ...]", nargs=-1)
@click.option("--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="HTML file to write.")
@click.option(
    "--num-rows", default=8, show_default=True, type=click.IntRange(min=1), help="Packed rows, or images, to show."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(config_file: str, overrides: tuple[str, ...], output: Path, num_rows: int, as_json: bool) -> None:
    """Show the first rows that CONFIG.yaml trains on: tokens, targets, who sees whom, images, bad records.

    Of the stages tokenizer and vision the first images, with their captions. Reads the data and the text tokenizer, but no
    weights.
    """
    from unigen.config.schema import ROW_STAGES
    from unigen.data.inspect import page_facts, read_step, write_page
    from unigen.data.inspect_images import write_image_page
    from unigen.data.sources import open_mixture
    from unigen.training.stages.registry import build_image_preparer, build_row_preparer

    config = load_config(config_file, overrides)
    title = f"{config.experiment.name}: what {config_file} trains on"
    mixture = open_mixture(config.data, config.experiment.seed, config.model)
    read = partial(
        read_step,
        mixture,
        config.training.samples_per_step,
        lanes=config.data.lanes,
        seed=config.experiment.seed,
        shuffle_block=config.data.shuffle_block,
    )
    if config.stage in ROW_STAGES:
        preparer = build_row_preparer(config)
        step = read(preparer)
        tokens = config.training.tokens_per_row
        page = write_page(
            step,
            preparer.template.tokenizer,
            title=title,
            tokens_per_row=tokens,
            num_rows=num_rows,
            draws_apart=config.model.family == "unifork",
        )
    else:
        step = read(build_image_preparer(config))
        page = write_image_page(step, title=title, num_images=num_rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    click.echo(json.dumps({"output": str(output), **page_facts(step)}) if as_json else f"wrote {output}")
