# SPDX-License-Identifier: Apache-2.0
"""`unigen data`: write the shapes world, look at a configuration's rows."""

import json
from pathlib import Path

import click


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
