# SPDX-License-Identifier: Apache-2.0
"""Fréchet Inception distance of a folder of images from another: overall, and for each category that both have.

<folder>/features/             of the images that are scored, see `features`
<folder>/features-reference/   of the reference, if that is a folder
<folder>/self_test.json         what was tested before
<folder>/reference.safetensors, statistics.safetensors   both sides' statistics; either can serve as a reference later

There is no interval: a distance of two distributions is no mean over images, and resampling them would bias it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unigen.data.json_files import read_json, write_json
from unigen.errors import EvaluationError
from unigen.evaluation.families import IMAGES
from unigen.evaluation.fid.features import Picture, extract, files_hash, formats, gather, list_pictures
from unigen.evaluation.fid.inception import WEIGHTS_NAME, FeatureExtractor, load_inception
from unigen.evaluation.fid.self_test import SELF_TEST_NAME, self_test
from unigen.evaluation.fid.statistics import (
    OVERALL,
    Statistics,
    frechet_distance,
    load_statistics,
    save_statistics,
)
from unigen.evaluation.job import Job

FEATURE_WIDTH = 2048
"""Fewer images than features have a covariance without full rank."""


class FolderFid:
    name = "fid"
    families = frozenset({IMAGES})

    def check(self, job: Job) -> None:
        list_pictures(_images(job))
        _reference(job)
        load_extractor(job)

    def run(self, job: Job) -> list[str]:
        extractor = tested_extractor(job)
        pictures, reference = list_pictures(_images(job)), _reference(job)
        identity = {"files": files_hash(pictures)}
        failures = extract(job, pictures, extractor, job.folder / "features", identity, self.name)
        return failures + extract_reference(job, reference, extractor, self.name)

    def score(self, job: Job) -> dict[str, Any]:
        pictures = list_pictures(_images(job))
        return {self.name: compare(job, pictures, _reference(job), self.name)}


def load_extractor(job: Job) -> FeatureExtractor:
    """The features that the settings ask for, on this rank's device."""
    config = job.options.fid
    path = Path(config.weights) if config.weights else job.options.data_root / "checkpoints" / WEIGHTS_NAME
    return load_inception(path, config.weights_sha256, job.device)


def tested_extractor(job: Job) -> FeatureExtractor:
    """The extractor, tested on this rank's device; what was tested is kept for the results."""
    extractor = load_extractor(job)
    tested = self_test(extractor, job.options.fid.golden)
    if job.ranks.is_first:
        write_json(tested, job.folder / SELF_TEST_NAME)
    return extractor


def extract_reference(
    job: Job, reference: Path | Sequence[Picture], extractor: FeatureExtractor, name: str
) -> list[str]:
    """Do this rank's share of the reference's features; nothing is to be done for stored statistics."""
    if isinstance(reference, Path):
        load_statistics(reference, extractor.identity)  # complains before anything is computed
        return []
    identity = {"files": files_hash(reference)}
    return extract(job, reference, extractor, job.folder / "features-reference", identity, f"{name}, reference")


def compare(job: Job, pictures: Sequence[Picture], reference: Path | Sequence[Picture], name: str) -> dict[str, Any]:
    """The distances, from features that are there.

    Raises:
        EvaluationError: images are missing and that is not allowed, or there are too few.
    """
    extractor = load_extractor(job)
    scored, num_missing = gather(pictures, job.folder / "features", name)
    if isinstance(reference, Path):
        other = load_statistics(reference, extractor.identity)
    else:
        other, missing_there = gather(reference, job.folder / "features-reference", f"{name}, reference")
        num_missing += missing_there
        save_statistics(other, extractor.identity, job.folder / "reference.safetensors")
    if num_missing and not job.options.is_partial_allowed:
        raise EvaluationError(f"{name}: {num_missing} images have no features; run the same command again")
    save_statistics(scored, extractor.identity, job.folder / "statistics.safetensors")
    return {
        **distances(scored, other),
        "num_images": scored[OVERALL].count,
        "num_reference": other[OVERALL].count,
        "is_rank_deficient": any(0 < side[OVERALL].count <= FEATURE_WIDTH for side in (scored, other)),
        "formats": formats(pictures),
        "reference_formats": None if isinstance(reference, Path) else formats(reference),
        "extractor": extractor.identity,
        "self_test": read_json(job.folder / SELF_TEST_NAME),
        **({"partial": True} if num_missing else {}),
    }


def distances(scored: Mapping[str, Statistics], other: Mapping[str, Statistics]) -> dict[str, Any]:
    """The overall distance and that of each category that both sides have."""
    shared = [group for group in scored if group != OVERALL and group in other]
    return {
        "overall": frechet_distance(scored[OVERALL], other[OVERALL]),
        "categories": {group: frechet_distance(scored[group], other[group]) for group in shared},
    }


def _images(job: Job) -> Path:
    assert job.options.images is not None, "only images drawn elsewhere are supported"
    return job.options.images


def _reference(job: Job) -> Path | list[Picture]:
    given = job.options.fid.reference
    if given is None:
        raise EvaluationError("fid compares --images with fid.reference=PATH: a folder of images, or stored statistics")
    return open_reference(Path(given), "fid.reference")


def open_reference(place: Path, key: str) -> Path | list[Picture]:
    """A folder's images, or a file of statistics as it is."""
    if place.is_dir():
        return list_pictures(place)
    if not place.is_file():
        raise EvaluationError(f"nothing at {place}; give a folder of images or a file of statistics with {key}=PATH")
    return place
