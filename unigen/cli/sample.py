# SPDX-License-Identifier: Apache-2.0
"""`unigen sample`: images from prompts, as PNG files that say how they were made, and a sheet of all of them."""

import json
import math
from pathlib import Path
from typing import Any

import click

from unigen.cli import best_of as best_of_n
from unigen.cli import model_options
from unigen.errors import ConfigError

SHEET_NAME = "contact_sheet.png"
MOST_ON_SHEET = 256
MOST_COLUMNS = 8


@click.command(
    help="Draw images from prompts. Writes one PNG an image with its prompt, seed and settings in its metadata, and "
    f"{SHEET_NAME}. The same seed gives the same image in any batch. With --best-of 5 --keep 1, five images of each prompt are "
    "drawn below candidates/ and rated by the model itself, and the best one is kept; ratings.jsonl says why."
)
@click.option("--prompt", "prompts", multiple=True, help="What to draw; may be given several times.")
@click.option("--prompts-file", type=click.Path(path_type=Path), help="A text file with one prompt a line.")
@click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the images.")
@click.option("--num-images", default=1, show_default=True, type=click.IntRange(min=1), help="Images of each prompt.")
@model_options.with_options(best_of_n.OPTIONS)
@model_options.with_options(model_options.DRAWING)
@model_options.BATCH_SIZE
@model_options.with_options(model_options.OPTIONS)
def command(
    prompts: tuple[str, ...],
    prompts_file: Path | None,
    output: Path,
    num_images: int,
    best_of: int | None,
    keep: int | None,
    verifier: str | None,
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
    best_of_n.check(best_of, keep, verifier)
    if best_of is not None and num_images != 1:
        raise ConfigError(
            f"--num-images {num_images} and --best-of exclude each other; say with --keep how many are kept"
        )
    settings = model_options.given(**drawing)
    chosen = {}
    if best_of is None:
        pipeline = model_options.load(model, data_root, device, decoding)
        images = _draw(pipeline, wanted, num_images, output, batch_size, {"base_seed": seed, **settings})
    else:
        from unigen.generation.best_of_n import BestOf

        selection = BestOf(best_of, keep or best_of_n.KEPT_BY_SAMPLE)
        chosen = {"selection": str(selection), "verifier": verifier or best_of_n.DEFAULT_STYLE}
        pipeline = model_options.load(model, data_root, device, decoding)
        images = best_of_n.select_images(
            pipeline, wanted, output, best_of=selection, verifier=chosen["verifier"], seed=seed,
            batch_size=batch_size, drawing=settings,
        )  # fmt: skip
    sheet = _write_sheet(images, len(images) // len(wanted), output)
    if as_json:
        click.echo(json.dumps({"images": images, "contact_sheet": str(sheet), "settings": settings, **chosen}))
    else:
        said = "".join(f" ({words})" for words in [chosen.get("selection")] if words)
        click.echo(f"{len(images)} images in {output}{said}, all on {sheet}")


def _read_prompts(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the prompts in {file}: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _draw(
    pipeline: Any, prompts: list[str], num_images: int, output: Path, batch_size: int, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Draw, and write every image as soon as its batch is done; what there is to say of each."""
    from tqdm import tqdm

    from unigen.generation.pipeline import DrawRequest
    from unigen.generation.png import write_png
    from unigen.generation.seeds import image_seed

    drawing = {name: value for name, value in settings.items() if name != "base_seed"}
    seed = settings["base_seed"]
    requests = [DrawRequest(prompt, image_seed(seed, prompt, i)) for prompt in prompts for i in range(num_images)]
    names = [f"{index:05d}_{sample:02d}.png" for index in range(len(prompts)) for sample in range(num_images)]
    drawn = []
    bar: Any  # not there yet: settings that the family does not know are refused before it is shown
    images = pipeline.draw_requests(
        requests, batch_size=batch_size, on_step=lambda step: bar.set_postfix(step=step + 1), **drawing
    )
    with tqdm(total=len(requests), desc="drawing", unit="image") as bar:
        for request, name, image in zip(requests, names, images, strict=True):
            made_with = {"prompt": request.prompt, "seed": request.seed, "model": pipeline.name, **settings}
            write_png(image, output / name, made_with)
            drawn.append({"path": str(output / name), "prompt": request.prompt, "seed": request.seed})
            bar.update()
    return drawn


def _write_sheet(images: list[dict[str, Any]], images_per_prompt: int, output: Path) -> Path:
    """All images on one sheet; those of one prompt in a row, or prompts in a square."""
    from PIL import Image

    from unigen.generation.contact_sheet import contact_sheet
    from unigen.generation.png import write_png

    columns = images_per_prompt if images_per_prompt > 1 else math.ceil(math.sqrt(len(images)))
    shown = images[:MOST_ON_SHEET]
    pictures = [Image.open(image["path"]) for image in shown]
    sheet = contact_sheet(pictures, [image["prompt"] for image in shown], min(columns, MOST_COLUMNS))
    write_png(sheet, output / SHEET_NAME)
    return output / SHEET_NAME
