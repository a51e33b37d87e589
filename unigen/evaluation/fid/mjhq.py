# SPDX-License-Identifier: Apache-2.0
"""FID on MJHQ-30K: one drawing of each of 30 000 prompts, in ten categories, against the images of the set.

The set's layout: `meta_data.json` with `{<id>: {"category", "prompt"}}`, and `mjhq30k_imgs/<category>/<id>.jpg`. Drawings lie
alike, as `images/<category>/<id>.png`; those drawn elsewhere may be `.jpg`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.data.manifest import file_hash, open_run
from unigen.errors import EvaluationError
from unigen.evaluation.drawings import draw_items, drawing_record, images_root, is_drawn
from unigen.evaluation.families import IMAGES, UAE, UNIFORK, UNIGEN
from unigen.evaluation.fid.benchmark import compare, extract_reference, load_extractor, open_reference, tested_extractor
from unigen.evaluation.fid.features import Picture, chunks_of, extract, files_hash, is_done
from unigen.evaluation.items import Item, expand
from unigen.evaluation.job import Job
from unigen.evaluation.records import RecordWriter, read_records

SET = Path("datasets", "MJHQ-30K")
METADATA, REFERENCE = "meta_data.json", "mjhq30k_imgs"
FETCH = "fetch playgroundai/MJHQ-30K from the Hugging Face hub to there, or give the place with"


@dataclass(frozen=True)
class Prompt:
    image_id: str
    category: str
    text: str


class MjhqFid:
    name = "mjhq_fid"
    families = frozenset({UNIGEN, UNIFORK, UAE, IMAGES})

    def check(self, job: Job) -> None:
        _reference(job, _prompts(job))
        load_extractor(job)

    def run(self, job: Job) -> list[str]:
        prompts = _prompts(job)
        reference = _reference(job, prompts)
        extractor = tested_extractor(job)
        pictures = _pictures(job, prompts)
        if job.options.images:
            identity: dict[str, Any] = {"files": files_hash(pictures)}
        else:
            identity = job.identity(file_hash(_metadata(job)), drawing=job.options.drawing.given())
            open_run(job.folder, identity, writes=job.ranks.is_first)
            _draw(job, prompts, pictures)
        failures = extract(job, pictures, extractor, job.folder / "features", identity, self.name)
        return failures + extract_reference(job, reference, extractor, self.name)

    def score(self, job: Job) -> dict[str, Any]:
        prompts = _prompts(job)
        found = compare(job, _pictures(job, prompts), _reference(job, prompts), self.name)
        is_other_set = len(prompts) != job.options.mjhq_fid.num_prompts
        return {self.name: {**found, **({"partial": True} if is_other_set else {})}}


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a `meta_data.json`, in order of category and id.

    Raises:
        EvaluationError: it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        prompts = [Prompt(key, value["category"], value["prompt"]) for key, value in content.items()]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EvaluationError(f"{path} is no metadata of MJHQ-30K ({error}); {FETCH} mjhq_fid.metadata=FILE") from error
    for prompt in prompts:
        for name in (prompt.image_id, prompt.category):
            if not name or Path(name).name != name:
                raise EvaluationError(f"{path}: {name!r} cannot name a file; fetch it again")
    return sorted(prompts, key=lambda prompt: (prompt.category, prompt.image_id))


def _prompts(job: Job) -> list[Prompt]:
    prompts, wanted = read_prompts(_metadata(job)), job.options.mjhq_fid.num_prompts
    if len(prompts) != wanted and not job.options.is_partial_allowed:
        raise EvaluationError(
            f"MJHQ-30K has {wanted} prompts, but {_metadata(job)} has {len(prompts)}; fetch it again, set "
            f"mjhq_fid.num_prompts={len(prompts)} for a set of your own, or --allow-partial"
        )
    return prompts


def _metadata(job: Job) -> Path:
    given = job.options.mjhq_fid.metadata
    return Path(given) if given else job.options.data_root / SET / METADATA


def _reference(job: Job, prompts: Sequence[Prompt]) -> Path | list[Picture]:
    """Stored statistics, or the images of exactly these prompts."""
    given = job.options.mjhq_fid.reference
    place = Path(given) if given else _metadata(job).parent / REFERENCE
    found = open_reference(place, "mjhq_fid.reference")
    if isinstance(found, Path):
        return found
    known = {(picture.category, picture.path.stem): picture for picture in found}
    absent = [prompt for prompt in prompts if (prompt.category, prompt.image_id) not in known]
    if absent and not job.options.is_partial_allowed:
        first = f"{absent[0].category}/{absent[0].image_id}"
        raise EvaluationError(f"{place} lacks {len(absent)} of {len(prompts)} images (first {first}); fetch them")
    wanted = [known.get((prompt.category, prompt.image_id)) for prompt in prompts]
    return [picture for picture in wanted if picture is not None]


def _path(prompt: Prompt) -> Path:
    return Path(prompt.category, f"{prompt.image_id}.png")


def _pictures(job: Job, prompts: Sequence[Prompt]) -> list[Picture]:
    return [Picture(prompt.category, _found(job, images_root(job) / _path(prompt))) for prompt in prompts]


def _found(job: Job, path: Path) -> Path:
    """An image drawn elsewhere may be a JPEG, as the set's own are."""
    jpeg = path.with_suffix(".jpg")
    return jpeg if job.options.images and jpeg.is_file() and not path.exists() else path


def _draw(job: Job, prompts: Sequence[Prompt], pictures: Sequence[Picture]) -> None:
    """Draw what this rank's chunks lack."""
    chunks = chunks_of(pictures)[job.ranks.rank :: job.ranks.world_size]
    open_chunks = [chunk for chunk in chunks if not is_done(job.folder / "features", chunk)]
    wanted = {picture.path for chunk in open_chunks for picture in chunk.pictures}
    records = read_records(job.folder)

    def path(item: Item) -> Path:
        return _path(prompts[item.index])

    items = [
        item
        for item in expand(MjhqFid.name, len(prompts), 1, job.options.seed)
        if pictures[item.index].path in wanted and not is_drawn(job, item, records, path(item))
    ]
    writer = RecordWriter(job.folder, job.ranks.rank)
    for drawing in draw_items(job, items, lambda item: prompts[item.index].text, path, MjhqFid.name, []):
        prompt = prompts[drawing.item.index]
        record = drawing_record(job, drawing, prompt.text, path(drawing.item))
        writer.append(drawing.item, {**record, "image_id": prompt.image_id, "category": prompt.category})
