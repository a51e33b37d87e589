# SPDX-License-Identifier: Apache-2.0
"""`unigen reconstruct`: a caption of every image, and what the model draws from that caption alone."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from unigen.cli import model_options
from unigen.cli.ask import read_image
from unigen.cli.sample import SHEET_NAME
from unigen.errors import ConfigError

CAPTIONS_NAME = "captions.jsonl"
MOST_ON_SHEET = 64


@click.command(
    help="Caption images and draw them again from their captions alone. Writes one PNG an image by its own name, "
    f"{CAPTIONS_NAME} with what was said of each, and {SHEET_NAME}, on which every image stands beside its reconstruction."
)
@click.option(
    "--image", "image_files", multiple=True, type=click.Path(path_type=Path), help="May be given several times."
)
@click.option("--images", "folder", type=click.Path(path_type=Path, file_okay=False), help="All images of a folder.")
@click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option("--question", help="What asks for the caption.  [the family's own words]")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Longest caption.  [128; UAE 512]")
@click.option(
    "--caption-temperature", type=click.FloatRange(min=0), help="0 takes the most probable word.  [0; UAE 0.7]"
)
@model_options.with_options(model_options.DRAWING)
@model_options.BATCH_SIZE
@model_options.with_options(model_options.OPTIONS)
def command(
    image_files: tuple[Path, ...],
    folder: Path | None,
    output: Path,
    question: str | None,
    max_new_tokens: int | None,
    caption_temperature: float | None,
    seed: int,
    batch_size: int,
    model: str,
    data_root: str,
    device: str | None,
    decoding: Any,
    as_json: bool,
    **drawing: Any,
) -> None:
    from unigen.generation.redrawing import redraw
    from unigen.generation.seeds import image_seed

    files = _find_images(image_files, folder)
    images = [read_image(file) for file in files]
    captioning = model_options.given(max_new_tokens=max_new_tokens, temperature=caption_temperature)
    drawn_with = model_options.given(**drawing)
    pipeline = model_options.load(model, data_root, device, decoding)
    seeds = [image_seed(seed, file.name, 0) for file in files]
    redrawn = redraw(
        pipeline,
        images,
        seeds,
        request=question,
        batch_size=batch_size,
        captioning=captioning,
        drawing=drawn_with,
    )
    made_with = {"model": pipeline.name, "base_seed": seed, **drawn_with}
    done = _write(files, images, seeds, redrawn, output, made_with)
    if as_json:
        click.echo(json.dumps({"images": done, "contact_sheet": str(output / SHEET_NAME)}))
        return
    for one in done:
        click.echo(f"{one['image']}: {one['caption']}")
    click.echo(f"{len(done)} reconstructions in {output}, beside their images on {output / SHEET_NAME}")


def _find_images(files: tuple[Path, ...], folder: Path | None) -> list[Path]:
    """The images that are asked for, each to be known by its name without the ending."""
    from unigen.data.class_folders import IMAGE_SUFFIXES

    found = list(files)
    if folder is not None:
        found += sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        where = f"no images in {folder}" if folder is not None else "say what to reconstruct"
        raise ConfigError(f"{where}: give --image FILE or --images FOLDER")
    stem, count = Counter(file.stem for file in found).most_common(1)[0]
    if count > 1:
        raise ConfigError(
            f"{count} of the images are called {stem}, and their reconstructions would be too; rename them"
        )
    return found


def _write(
    files: list[Path], images: list[Any], seeds: list[int], redrawn: Any, output: Path, made_with: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every reconstruction as soon as its batch is done, then the captions and the sheet; what there is to say of each."""
    from tqdm import tqdm

    from unigen.data.whole_files import whole_file
    from unigen.generation.contact_sheet import contact_sheet
    from unigen.generation.png import write_png

    done: list[dict[str, Any]] = []
    shown: list[Any] = []
    for file, image, seed, one in zip(
        files, images, seeds, tqdm(redrawn, "redrawing", len(files), unit="image"), strict=True
    ):
        path = output / f"{file.stem}.png"
        write_png(one.image, path, {"prompt": one.caption, "seed": seed, "image": file.name, **made_with})
        done.append({"image": str(file), "caption": one.caption, "reconstruction": str(path), "seed": seed})
        shown += [image, one.image]
    with whole_file(output / CAPTIONS_NAME) as partial:
        partial.write_text("".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in done), encoding="utf-8")
    labels = [label for one in done for label in (Path(one["image"]).name, one["caption"])]
    sheet = contact_sheet(shown[: 2 * MOST_ON_SHEET], labels[: 2 * MOST_ON_SHEET], 2)
    write_png(sheet, output / SHEET_NAME)
    return done
