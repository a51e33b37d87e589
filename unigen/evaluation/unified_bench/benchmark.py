# SPDX-License-Identifier: Apache-2.0
"""Unified-Bench, protocol 1 (arXiv 2509.09666): a model describes an image, draws it from its words alone, and both are compared.

<folder>/captions/records-*.jsonl           the captions
<folder>/images/<as the original>.png       the drawings, with records-*.jsonl beside `images`
<folder>/scores/<encoder>/records-*.jsonl   likenesses; run.json says which weights and which preprocessing
<folder>/images.jsonl                       all of it, one line an image
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unigen.data.json_files import read_json, write_lines
from unigen.data.manifest import MANIFEST_NAME, open_run
from unigen.errors import EvaluationError
from unigen.evaluation.drawings import draw_items, drawing_record, images_root, is_drawn, read_image
from unigen.evaluation.families import UAE, UNIFORK, UNIGEN
from unigen.evaluation.items import Item
from unigen.evaluation.job import Job
from unigen.evaluation.records import RecordWriter, read_records
from unigen.evaluation.unified_bench.encoders import load_checked_encoder, origin_of
from unigen.evaluation.unified_bench.likeness import ImagePair, compare_pairs, summarise
from unigen.evaluation.unified_bench.work import NAME, Work
from unigen.generation.pipeline import AskRequest
from unigen.rewards.image_encoders.encoder import ImageEncoder

LINES_NAME = "images.jsonl"


class UnifiedBench:
    name = NAME
    families = frozenset({UNIGEN, UNIFORK, UAE})

    def check(self, job: Job) -> None:
        work = Work.of(job)
        open_run(job.folder, work.identity(), writes=False)
        for name in work.encoders:
            _open_encoder(work, name, writes=False)

    def run(self, job: Job) -> list[str]:
        work = Work.of(job)
        open_run(job.folder, work.identity(), writes=job.ranks.is_first)
        failures = _caption(work)
        _draw(work)
        for name in work.encoders:
            failures += _compare(work, name)
        return [f"{NAME}, {line}" for line in failures]

    def score(self, job: Job) -> dict[str, Any]:
        work = Work.of(job)
        finished = {name: work.scored(name).finished(NAME, work.items) for name in work.encoders}
        likeness = {
            name: {work.name(item): record["similarity"] for item, record in found.pairs}
            for name, found in finished.items()
        }
        summary = summarise(likeness)
        lines = _lines(work, likeness)
        write_lines(lines, job.folder / LINES_NAME)
        is_partial = work.is_other_number or any(found.is_partial for found in finished.values())
        content = {
            **summary,
            "num_images": len(lines),
            "captions": _about_captions(work, lines),
            "encoders": {name: _identity_of(work, name) for name in work.encoders},
            "lines": f"{NAME}/{LINES_NAME}",
            **({"partial": True} if is_partial else {}),
        }
        return {NAME: content}


def _open_encoder(work: Work, name: str, *, writes: bool) -> ImageEncoder:
    """An encoder on this rank's device, which claims the folder of its likenesses."""
    encoder = load_checked_encoder(name, work.encoders[name], work.job.options.data_root, work.job.device)
    open_run(work.scored(name).folder, encoder.identity, writes=writes, notes=origin_of(encoder))
    return encoder


def _caption(work: Work) -> list[str]:
    """Caption this rank's images that have no caption; one line for each that cannot be read."""
    job, records = work.job, read_records(work.captions)
    pending = [item for item in job.share(work.items) if item.item_id not in records]
    asked: deque[Item] = deque()
    failures: list[str] = []
    requests = _requests(work, pending, asked, failures)
    captions = job.pipeline.ask_requests(requests, batch_size=job.options.batch_size, **work.captioning)
    writer = RecordWriter(work.captions, job.ranks.rank)
    for caption in job.progress(captions, len(pending), f"{NAME}, captions"):
        item = asked.popleft()
        writer.append(item, {"name": work.name(item), "caption": caption, "rank": job.ranks.rank})
    return failures


def _requests(work: Work, pending: Sequence[Item], asked: deque[Item], failures: list[str]) -> Iterator[AskRequest]:
    """The requests one by one; `asked` gets what is asked in the order of the answers, `failures` a line for each bad image."""
    for item in pending:
        try:
            image = read_image(work.images[item.index])
        except EvaluationError as error:
            failures.append(f"image {work.name(item)}: {error}")
            continue
        asked.append(item)
        yield AskRequest(work.question, (image,), seed=item.seed)


def _draw(work: Work) -> None:
    """Draw what this rank's captions lack."""
    job, captions, records = work.job, read_records(work.captions), read_records(work.job.folder)
    pending = [
        item
        for item in job.share(work.items)
        if item.item_id in captions and not is_drawn(job, item, records, work.path(item))
    ]

    def prompt(item: Item) -> str:
        return str(captions[item.item_id]["caption"])

    writer = RecordWriter(job.folder, job.ranks.rank)
    for drawing in draw_items(job, pending, prompt, work.path, f"{NAME}, drawings", []):
        record = drawing_record(job, drawing, prompt(drawing.item), work.path(drawing.item))
        writer.append(drawing.item, {"name": work.name(drawing.item), **record})


def _compare(work: Work, name: str) -> list[str]:
    """Compare this rank's drawings that have no likeness by this encoder; one line for each that cannot be compared."""
    encoder = _open_encoder(work, name, writes=work.job.ranks.is_first)
    job, drawn = work.scored(name), read_records(work.job.folder)
    known = read_records(job.folder)
    pending = {
        work.name(item): item
        for item in job.share(work.items)
        if item.item_id in drawn and not _is_of(known.get(item.item_id), drawn[item.item_id])
    }
    root = images_root(work.job)
    pairs = [ImagePair(key, work.images[item.index], root / work.path(item)) for key, item in pending.items()]
    writer = RecordWriter(job.folder, job.ranks.rank)
    failures = []
    compared = compare_pairs(encoder, pairs, job.options.batch_size)
    for one in job.progress(compared, len(pairs), f"{NAME}, {name}"):
        item = pending[one.pair.name]
        if one.value is None:
            failures.append(f"image {one.pair.name}, {name}: {one.reason}")
            continue
        pixels = drawn[item.item_id]["pixels_sha256"]
        writer.append(item, {"name": one.pair.name, "similarity": one.value, "pixels_sha256": pixels})
    return failures


def _is_of(known: Mapping[str, Any] | None, drawing: Mapping[str, Any]) -> bool:
    """Whether a likeness is that of these very pixels."""
    return known is not None and known["pixels_sha256"] == drawing["pixels_sha256"]


def _lines(work: Work, likeness: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """What there is to say of each image that every encoder compared."""
    captions = read_records(work.captions)
    root = images_root(work.job)
    lines = []
    for item in work.items:
        name = work.name(item)
        if all(name in values for values in likeness.values()):
            lines.append(
                {
                    "name": name,
                    "image": str(work.images[item.index]),
                    "caption": captions[item.item_id]["caption"],
                    "reconstruction": str(root / work.path(item)),
                    "similarity": {encoder: values[name] for encoder, values in likeness.items()},
                }
            )
    return lines


def _about_captions(work: Work, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How they were asked for and how long they are: long ones may only fit what the decoder was trained on."""
    lengths = [len(line["caption"].split()) for line in lines]
    mean = sum(lengths) / len(lengths) if lengths else None
    return {"question": work.question, **work.captioning, "mean_words": mean, "num_empty": lengths.count(0)}


def _identity_of(work: Work, name: str) -> dict[str, Any]:
    """What the likenesses of an encoder were made with."""
    manifest = read_json(work.scored(name).folder / MANIFEST_NAME) or {}
    return {**manifest["identity"], "origin": manifest["origin"]}
