# SPDX-License-Identifier: Apache-2.0
"""Features of many images on disk, in chunks: each is whole or absent, so work is shared by chunks and goes on where it stopped.

<folder>/run.json                       of which images and by which extractor
<folder>/<category>-<number>.safetensors   `features` of one chunk

Legend: N images, D feature width.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from unigen.data.manifest import open_run
from unigen.data.whole_files import whole_file
from unigen.errors import EvaluationError
from unigen.evaluation.drawings import read_image
from unigen.evaluation.fid.inception import FeatureExtractor
from unigen.evaluation.fid.statistics import OVERALL, Gatherer, Statistics
from unigen.evaluation.job import Job

CHUNK = 64
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FEATURES = "features"


@dataclass(frozen=True)
class Picture:
    """An image file, with its category; that is empty where there are none."""

    category: str
    path: Path


@dataclass(frozen=True)
class Chunk:
    name: str
    category: str
    pictures: Sequence[Picture]


def list_pictures(folder: Path) -> list[Picture]:
    """The images of a folder, in order; the folders in it are categories.

    Raises:
        EvaluationError: there is none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise EvaluationError(f"no images ({', '.join(SUFFIXES)}) in {folder}")
    inside = [path.relative_to(folder).parts for path in paths]
    return [Picture(parts[0] if len(parts) > 1 else "", path) for path, parts in zip(paths, inside, strict=True)]


def chunks_of(pictures: Sequence[Picture]) -> list[Chunk]:
    """Pictures in chunks of one category each."""
    chunks = []
    for category in sorted({picture.category for picture in pictures}):
        members = [picture for picture in pictures if picture.category == category]
        for number, start in enumerate(range(0, len(members), CHUNK)):
            chunks.append(Chunk(f"{category or 'all'}-{number:05d}", category, members[start : start + CHUNK]))
    return chunks


def extract(
    job: Job,
    pictures: Sequence[Picture],
    extractor: FeatureExtractor,
    folder: Path,
    identity: dict[str, Any],
    name: str,
) -> list[str]:
    """Do this rank's chunks that are not done; returns one line for each image that cannot be read.

    A chunk with such an image is kept only if partial results are allowed.
    """
    open_run(folder, {**identity, "extractor": extractor.identity}, writes=job.ranks.is_first)
    chunks = chunks_of(pictures)[job.ranks.rank :: job.ranks.world_size]
    pending = [chunk for chunk in chunks if not is_done(folder, chunk)]
    failures: list[str] = []
    for chunk in job.progress(pending, len(pending), f"{name}, features"):
        images, bad = [], []
        for picture in chunk.pictures:
            try:
                images.append(read_image(picture.path))
            except EvaluationError as error:
                bad.append(f"{name}: {error}")
        failures += bad
        if images and (not bad or job.options.is_partial_allowed):
            with whole_file(_place(folder, chunk)) as partial:
                save_file({FEATURES: extractor.features(images)}, partial)
    return failures


def is_done(folder: Path, chunk: Chunk) -> bool:
    """Whether all images of a chunk have their features."""
    place = _place(folder, chunk)
    if not place.is_file():
        return False
    with safe_open(place, "np") as file:
        return bool(file.get_slice(FEATURES).get_shape()[0] == len(chunk.pictures))


def gather(pictures: Sequence[Picture], folder: Path, what: str) -> tuple[dict[str, Statistics], int]:
    """Statistics of all images and of each category, and how many images are missing from them.

    Raises:
        EvaluationError: too few images.
    """
    sums: dict[str, Gatherer] = {}
    for chunk in chunks_of(pictures):
        place = _place(folder, chunk)
        if place.is_file():
            features_ND = load_file(place)[FEATURES]
            for group in dict.fromkeys([OVERALL, chunk.category or OVERALL]):
                sums.setdefault(group, Gatherer()).add(features_ND)
    found = {group: gatherer.statistics(f"{what}, {group}") for group, gatherer in sums.items()}
    if OVERALL not in found:
        raise EvaluationError(f"{what}: no image has features in {folder}; run the same command again")
    return found, len(pictures) - found[OVERALL].count


def files_hash(pictures: Sequence[Picture]) -> str:
    """SHA-256 over names and sizes of files, which tells one set of images from another without reading it."""
    digest = hashlib.sha256()
    for picture in pictures:
        size = picture.path.stat().st_size if picture.path.is_file() else None
        digest.update(f"{picture.category}/{picture.path.name}:{size}\n".encode())
    return digest.hexdigest()


def formats(pictures: Sequence[Picture]) -> list[str]:
    """The kinds of files among them; compression changes features."""
    return sorted({picture.path.suffix.lower() for picture in pictures})


def categories(pictures: Sequence[Picture]) -> Iterator[str]:
    """The categories, each once, in order."""
    yield from dict.fromkeys(picture.category for picture in pictures if picture.category)


def _place(folder: Path, chunk: Chunk) -> Path:
    return folder / f"{chunk.name}.safetensors"
