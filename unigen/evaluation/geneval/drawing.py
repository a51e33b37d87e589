# SPDX-License-Identifier: Apache-2.0
"""GenEval's images in its own layout: `<prompt, 5 digits>/metadata.jsonl` and `<prompt>/samples/<image, 5 digits>.png`."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unigen.data.json_files import write_lines
from unigen.errors import EvaluationError
from unigen.evaluation.drawings import copy_image, draw_items, drawing_record, images_root, is_drawn
from unigen.evaluation.items import Item
from unigen.evaluation.job import DrawnPrompt, Job
from unigen.evaluation.records import RecordWriter, read_records

METADATA_NAME = "metadata.jsonl"
_SAMPLE = re.compile(r"(\d+)\.png")

Entry = Mapping[str, Any]


def image_path(item: Item) -> Path:
    """Where an item's image lies below the images' folder."""
    return Path(f"{item.index:05d}", "samples", f"{item.sample:05d}.png")


def draw_prompts(
    job: Job,
    name: str,
    entries: Sequence[Entry],
    items: Sequence[Item],
    grade: Callable[[Entry, Image.Image], Mapping[str, Any]],
    path_of: Callable[[Item], Path] = image_path,
) -> list[str]:
    """Draw what is missing of this rank's share, write each prompt's line beside its samples and a record for each image.

    Args:
        grade: what a record says of its image besides; an EvaluationError fails this item alone.
    Returns:
        one line for each item that failed.
    """
    records = read_records(job.folder)
    pending = [item for item in job.share(items) if not is_drawn(job, item, records, path_of(item))]
    writer = RecordWriter(job.folder, job.ranks.rank)
    failures: list[str] = []
    drawn = draw_items(job, pending, lambda item: entries[item.index]["prompt"], path_of, name, failures)
    for drawing in drawn:
        item, entry, path = drawing.item, entries[drawing.item.index], path_of(drawing.item)
        try:
            if not job.options.images:
                _write_metadata(entry, images_root(job) / path.parents[1] / METADATA_NAME)
            record = drawing_record(job, drawing, entry["prompt"], path)
            writer.append(item, {**record, "tag": entry["tag"], **grade(entry, drawing.image)})
        except EvaluationError as error:  # a prompt that cannot be judged
            failures.append(f"{name}, item {item.item_id}: {error}")
    return failures


def drawn_prompts(entries: Sequence[Entry]) -> list[DrawnPrompt]:
    """The prompts by their numbers, as they name folders."""
    return [DrawnPrompt(f"{index:05d}", entry["prompt"], entry) for index, entry in enumerate(entries)]


def lay_out_prompt(prompt: DrawnPrompt, images: Sequence[Path], folder: Path) -> None:
    """Put the images of a prompt into a folder of this layout, with the prompt's line."""
    own = folder / prompt.item_id
    for sample, image in enumerate(images):
        copy_image(image, own / "samples" / f"{sample:05d}.png")
    _write_metadata(prompt.metadata, own / METADATA_NAME)


def find_images(
    root: Path, entries: Sequence[Entry], num_images: int, *, is_partial_allowed: bool = False
) -> dict[tuple[int, int], Path]:
    """The images of a folder that was drawn elsewhere, relative to it, by prompt and sample.

    Numbers may have any number of digits, as the official generator and its README differ in it; samples count from the
    lowest number of a folder.

    Raises:
        EvaluationError: a folder is that of another prompt; or there are not exactly `num_images` of each prompt, unless
            fewer are allowed.
    """
    folders = {int(path.name): path for path in root.iterdir() if path.is_dir() and path.name.isdigit()}
    missing = [index for index in range(len(entries)) if index not in folders]
    beyond = [index for index in sorted(folders) if index >= len(entries)]
    if beyond or (missing and not is_partial_allowed):
        what = f"folder {beyond[0]:05d} has no prompt" if beyond else f"prompt {missing[0]:05d} has no folder"
        raise EvaluationError(f"{root} holds {len(folders)} folders for {len(entries)} prompts; {what}")
    found: dict[tuple[int, int], Path] = {}
    for index, folder in sorted(folders.items()):
        _require_prompt(folder, entries[index])
        samples = sorted((path for path in folder.glob("samples/*.png") if _SAMPLE.fullmatch(path.name)), key=_number)
        if len(samples) > num_images or (len(samples) < num_images and not is_partial_allowed):
            raise EvaluationError(
                f"{folder} has {len(samples)} images, not {num_images}; draw the rest, or give their number by --num-images"
            )
        found |= {(index, sample): path.relative_to(root) for sample, path in enumerate(samples)}
    return found


def _number(path: Path) -> int:
    return int(path.stem)


def _require_prompt(folder: Path, entry: Entry) -> None:
    """A folder without its line of the prompt file is taken to be that of its number."""
    file = folder / METADATA_NAME
    if not file.is_file():
        return
    try:
        line = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvaluationError(f"{file} is not one JSON object: {error}") from error
    wrong = [key for key in ("prompt", "tag", "include", "exclude") if line.get(key) != entry.get(key)]
    if wrong:
        raise EvaluationError(
            f"{file} has another {wrong[0]} than the prompt file, {line.get(wrong[0])!r} and not {entry.get(wrong[0])!r}; "
            "give the prompts that were drawn by --prompts FILE"
        )


def _write_metadata(entry: Entry, path: Path) -> None:
    """Write a prompt's line, beside and renamed: several ranks may draw one prompt's images."""
    if path.exists():
        return
    write_lines([entry], path)
