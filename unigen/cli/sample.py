# SPDX-License-Identifier: Apache-2.0
"""`unigen sample`: images from prompts, as PNG files that say how they were made, and a sheet of all of them."""

import json
import math
from pathlib import Path
from typing import Any

import click

from unigen.cli import model_options
from unigen.errors import ConfigError

SHEET_NAME = "contact_sheet.png"
MOST_ON_SHEET = 256
MOST_COLUMNS = 8


@click.command(
    help="Draw images from prompts. Writes one PNG an image with its prompt, seed and settings in its metadata, and "
    f"{SHEET_NAME}. The same seed gives the same image in any batch."
)
@click.option("--prompt", "prompts", multiple=True, help="What to draw; may be given several times.")
@click.option("--prompts-file", type=click.Path(path_type=Path), help="A text file with one prompt a line.")
@click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the images.")
@click.option("--num-images", default=1, show_default=True, type=click.IntRange(min=1), help="Images of each prompt.")
@model_options.with_options(model_options.DRAWING)
@model_options.BATCH_SIZE
@model_options.with_options(model_options.OPTIONS)
def command(
    prompts: tuple[str, ...],
    prompts_file: Path | None,
    output: Path,
    num_images: int,
    seed: int,
    batch_size: int,
    model: str,
    data_root: str,
    device: str | None,
    decoding: Any,
    as_json: bool,
    **drawing: Any,
) -> None:
    wanted = [*prompts, *_read_prompts(prompts_file)]
    if not wanted:
        raise ConfigError("say what to draw: --prompt TEXT or --prompts-file FILE")
    from unigen.generation.pipeline import DrawRequest
    from unigen.generation.seeds import image_seed

    settings = model_options.given(**drawing)
    pipeline = model_options.load(model, data_root, device, decoding)
    requests = [DrawRequest(prompt, image_seed(seed, prompt, i)) for prompt in wanted for i in range(num_images)]
    names = [f"{index:05d}_{sample:02d}.png" for index in range(len(wanted)) for sample in range(num_images)]
    paths = _draw(pipeline, requests, [output / name for name in names], batch_size, {"base_seed": seed, **settings})
    columns = min(num_images, MOST_COLUMNS) if num_images > 1 else min(math.ceil(math.sqrt(len(wanted))), MOST_COLUMNS)
    sheet = _write_sheet(paths, [request.prompt for request in requests], columns, output)
    if as_json:
        images = [
            {"path": str(path), "prompt": request.prompt, "seed": request.seed}
            for path, request in zip(paths, requests, strict=True)
        ]
        click.echo(json.dumps({"images": images, "contact_sheet": str(sheet), "settings": settings}))
    else:
        click.echo(f"{len(paths)} images in {output}, all on {sheet}")


def _read_prompts(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the prompts in {file}: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _draw(pipeline: Any, requests: Any, paths: list[Path], batch_size: int, settings: dict[str, Any]) -> list[Path]:
    """Draw, and write every image as soon as its batch is done."""
    from tqdm import tqdm

    from unigen.generation.png import write_png

    drawing = {name: value for name, value in settings.items() if name != "base_seed"}
    with tqdm(total=len(requests), desc="drawing", unit="image") as bar:
        images = pipeline.draw_requests(
            requests, batch_size=batch_size, on_step=lambda step: bar.set_postfix(step=step + 1), **drawing
        )
        for request, path, image in zip(requests, paths, images, strict=True):
            made_with = {"prompt": request.prompt, "seed": request.seed, "model": pipeline.name, **settings}
            write_png(image, path, made_with)
            bar.update()
    return paths


def _write_sheet(paths: list[Path], prompts: list[str], columns: int, output: Path) -> Path:
    from PIL import Image

    from unigen.generation.contact_sheet import contact_sheet
    from unigen.generation.png import write_png

    images = [Image.open(path) for path in paths[:MOST_ON_SHEET]]
    write_png(contact_sheet(images, prompts[:MOST_ON_SHEET], columns), output / SHEET_NAME)
    return output / SHEET_NAME
