# SPDX-License-Identifier: Apache-2.0
"""The images of a benchmark that draws: drawn by the model and kept as PNG, or read from where they were drawn elsewhere."""

import filecmp
import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unigen.data.whole_files import whole_file
from unigen.errors import EvaluationError
from unigen.evaluation.items import Item
from unigen.evaluation.job import Job
from unigen.generation.pipeline import DrawRequest
from unigen.generation.png import is_whole_image, write_png

IMAGES_FOLDER = "images"


@dataclass(frozen=True)
class Drawing:
    """The image of an item, once its file is there."""

    item: Item
    image: Image.Image
    seconds: float | None = None
    """Wall time of drawing it: an equal share of its batch's. None where it was drawn elsewhere."""


def images_root(job: Job) -> Path:
    """The folder of a benchmark's images: its own, or that of `--images`."""
    return job.options.images or job.folder / IMAGES_FOLDER


def is_drawn(job: Job, item: Item, records: Mapping[str, Any], path: Path) -> bool:
    """Whether an item has its record and, at `path` below the images' folder, its image; of an image drawn elsewhere, which may
    change behind our back, the record has to be of these very pixels."""
    record, place = records.get(item.item_id), images_root(job) / path
    if record is None or not job.options.images:
        return record is not None and is_whole_image(place)
    try:
        return bool(record["pixels_sha256"] == pixels_hash(read_image(place)))
    except EvaluationError:
        return False


def draw_items(
    job: Job,
    items: Sequence[Item],
    prompt_of: Callable[[Item], str],
    path_of: Callable[[Item], Path],
    name: str,
    failures: list[str],
) -> Iterator[Drawing]:
    """The images of `items`, in order, each once its file is there.

    Args:
        path_of: where an item's image lies below the images' folder.
        name: the benchmark's.
        failures: gets one line for each image of `--images` that cannot be read; its item is left out.
    """
    if job.options.images:
        for item in job.progress(items, len(items), name):
            try:
                yield Drawing(item, read_image(job.options.images / path_of(item)))
            except EvaluationError as error:
                failures.append(f"{name}, item {item.item_id}: {error}")
        return
    requests = (DrawRequest(prompt_of(item), item.seed) for item in items)
    images = job.pipeline.draw_requests(requests, batch_size=job.options.batch_size, **job.options.drawing.given())
    timed = _timed(images, len(items), job.options.batch_size)
    for item, (image, seconds) in job.progress(zip(items, timed, strict=True), len(items), name):
        text = {"prompt": prompt_of(item), "seed": item.seed, "model": job.pipeline.name}
        write_png(image, images_root(job) / path_of(item), text)
        yield Drawing(item, image, seconds)


def _timed(images: Iterable[Image.Image], num_images: int, batch_size: int) -> Iterator[tuple[Image.Image, float]]:
    """Images as they come, all those of a batch at once, each with its share of the batch's wall time."""
    started, seconds = time.perf_counter(), 0.0
    for place, image in enumerate(images):
        if place % batch_size == 0:
            seconds = (time.perf_counter() - started) / min(batch_size, num_images - place)
        yield image, seconds
        started = time.perf_counter()


def drawing_record(job: Job, drawing: Drawing, prompt: str, path: Path) -> dict[str, Any]:
    """What the record of a drawn image always says."""
    image = drawing.image
    return {
        "prompt": prompt,
        "path": str(Path(IMAGES_FOLDER, path)) if job.options.images is None else str(job.options.images / path),
        "pixels_sha256": pixels_hash(image),
        "width": image.width,
        "height": image.height,
        "rank": job.ranks.rank,
        **({} if drawing.seconds is None else {"seconds": round(drawing.seconds, 4)}),
    }


def pixels_hash(image: Image.Image) -> str:
    """SHA-256 of the pixels, whatever the file says besides."""
    return hashlib.sha256(image.tobytes()).hexdigest()


def read_image(path: Path) -> Image.Image:
    """An RGB image.

    Raises:
        EvaluationError: it is absent or damaged.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's complaints about absent, foreign and damaged files
        raise EvaluationError(f"cannot read {path}: {' '.join(str(error).split())}; draw it again") from error


def copy_image(source: Path, target: Path) -> None:
    """Copy a file, beside and renamed; nothing happens where an equal one lies."""
    if target.is_file() and filecmp.cmp(source, target, shallow=False):
        return
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)
