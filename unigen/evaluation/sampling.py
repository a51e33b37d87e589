# SPDX-License-Identifier: Apache-2.0
"""Drawing the prompts of a benchmark into its layout, without scoring: what is there already is kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unigen.data.json_files import write_lines
from unigen.data.whole_files import whole_file
from unigen.evaluation.fid.mjhq import Prompt
from unigen.evaluation.geneval.drawing import METADATA_NAME, image_path
from unigen.evaluation.items import expand
from unigen.generation.pipeline import DrawRequest, Pipeline
from unigen.generation.png import is_whole_image, write_png

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Drawing:
    """One image to be drawn, and its file: a PNG, or a JPEG by its name."""

    path: Path
    prompt: str
    seed: int


def geneval_drawings(
    entries: Sequence[dict[str, Any]], output: Path, num_images: int, seed: int, suffix: str = ""
) -> list[Drawing]:
    """GenEval's layout, `<prompt, 5 digits>/samples/<image, 5 digits>.png`, with the seeds of the benchmark `geneval`."""
    return [
        Drawing(output / image_path(item), f"{entries[item.index]['prompt']}{suffix}", item.seed)
        for item in expand("geneval", len(entries), num_images, seed)
    ]


def finish_geneval(entries: Sequence[dict[str, Any]], output: Path, num_images: int) -> None:
    """Beside the samples of each prompt its line, `metadata.jsonl`, and all of them in one row, `grid.png`."""
    for index, entry in enumerate(entries):
        folder = output / f"{index:05d}"
        write_lines([entry], folder / METADATA_NAME)
        images = [Image.open(folder / "samples" / f"{sample:05d}.png") for sample in range(num_images)]
        width, height = images[0].size
        grid = Image.new("RGB", (width * num_images, height))
        for place, image in enumerate(images):
            grid.paste(image, (place * width, 0))
        write_png(grid, folder / "grid.png")


def mjhq_drawings(prompts: Sequence[Prompt], output: Path, seed: int, suffix: str = "") -> list[Drawing]:
    """MJHQ-30K's layout, `<category>/<id>.jpg`, with the seeds of the benchmark `mjhq_fid`."""
    items = expand("mjhq_fid", len(prompts), 1, seed)
    return [
        Drawing(output / prompt.category / f"{prompt.image_id}.jpg", f"{prompt.text}{suffix}", item.seed)
        for prompt, item in zip(prompts, items, strict=True)
    ]


def draw_missing(
    pipeline: Pipeline,
    drawings: Sequence[Drawing],
    batch_size: int,
    settings: dict[str, Any],
    progress: Callable[[Iterator[Any], int], Iterator[Any]],
) -> int:
    """Draw and write what has no whole file yet; returns how many that were."""
    missing = [one for one in drawings if not is_whole_image(one.path)]
    requests = (DrawRequest(one.prompt, one.seed) for one in missing)
    images = pipeline.draw_requests(requests, batch_size=batch_size, **settings)
    for one, image in progress(zip(missing, images, strict=True), len(missing)):
        if one.path.suffix == ".png":
            write_png(image, one.path, {"prompt": one.prompt, "seed": one.seed, "model": pipeline.name, **settings})
        else:
            with whole_file(one.path) as partial:
                image.save(partial, "JPEG", quality=JPEG_QUALITY)
    return len(missing)
