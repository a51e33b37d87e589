# SPDX-License-Identifier: Apache-2.0
"""GenEval in the world of shapes: does an image show what its prompt asks for? Judged by GenEval's rule.

Files, in GenEval's own layout: `images/<prompt, 5 digits>/metadata.jsonl` and `images/<prompt>/samples/<image, 5 digits>.png`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unigen.data.shapes.detector import ACCEPTED_SCORE, detect
from unigen.data.shapes.render import render
from unigen.data.shapes.scene import TAGS
from unigen.errors import EvaluationError
from unigen.evaluation.drawings import draw_items, drawing_record, images_root, is_drawn
from unigen.evaluation.families import IMAGES, UNIGEN
from unigen.evaluation.geneval.rules import Thresholds, Verdict, judge
from unigen.evaluation.items import Item, expand, read_entries
from unigen.evaluation.job import Job
from unigen.evaluation.manifest import file_hash, open_run
from unigen.evaluation.prompt_scenes import scene_for
from unigen.evaluation.records import RecordWriter, read_records
from unigen.evaluation.statistics import Estimate, clustered, estimate
from unigen.evaluation.tokenizer_quality import score_tokenizer

THRESHOLDS = Thresholds(score=ACCEPTED_SCORE, counting_score=ACCEPTED_SCORE)
PROMPTS_FILE = "evaluation/geneval_shapes.jsonl"

Entry = Mapping[str, Any]


class GenevalShapes:
    name = "geneval_shapes"
    families = frozenset({UNIGEN, IMAGES})

    def run(self, job: Job) -> list[str]:
        entries, items = _work(job)
        settings = {"num_images": job.options.num_images, "drawing": job.options.drawing.given()}
        identity = job.identity(file_hash(job.options.world / PROMPTS_FILE), **settings)
        open_run(job.folder, identity, writes=job.ranks.is_first)
        records = read_records(job.folder)
        pending = [item for item in job.share(items) if not is_drawn(job, item, records, image_path(item))]
        writer = RecordWriter(job.folder, job.ranks.rank)
        failures: list[str] = []
        prompts = [entry["prompt"] for entry in entries]
        drawn = draw_items(job, pending, lambda item: prompts[item.index], image_path, self.name, failures)
        for item, image in drawn:
            try:
                writer.append(item, _record(job, item, entries[item.index], image))
            except EvaluationError as error:  # a prompt that cannot be judged
                failures.append(f"{self.name}, item {item.item_id}: {error}")
        return failures

    def score(self, job: Job) -> dict[str, Any]:
        entries, items = _work(job)
        finished = job.finished(self.name, items)
        verdicts = [(item.index, record["correct"]) for item, record in finished.pairs]
        scores = score_verdicts(entries, verdicts)
        bounds = _bounds(job, entries, finished.pairs[0][1]["width"])
        results = {self.name: {**scores, **bounds, **finished.mark}}
        quality = score_tokenizer(job)
        return results if quality is None else {**results, "tokenizer": quality}


def image_path(item: Item) -> Path:
    """Where an item's image lies below the images' folder."""
    return Path(f"{item.index:05d}", "samples", f"{item.sample:05d}.png")


def judge_image(entry: Entry, image: Image.Image) -> Verdict:
    """Whether an image is what the prompt asks for, by the detector of shapes."""
    return judge(entry, detect(image), THRESHOLDS)


def score_verdicts(entries: Sequence[Entry], verdicts: Sequence[tuple[int, bool]]) -> dict[str, Any]:
    """Scores of (prompt index, correct) pairs.

    `overall` is the unweighted mean over tags, as in GenEval. `seen` and `unseen` compare like with like: both are means
    over the tags that have prompts of either kind.
    """
    judged = [entries[index] for index in dict.fromkeys(index for index, _ in verdicts)]
    tags = [tag for tag in dict.fromkeys([*TAGS, *(entry["tag"] for entry in judged)]) if _any(judged, tag)]
    by_tag = {tag: _estimate(entries, verdicts, [tag]) for tag in tags}
    mixed = [tag for tag in tags if _any(judged, tag, True) and _any(judged, tag, False)]
    overall = _estimate(entries, verdicts, tags)
    scores: dict[str, Any] = {
        "overall": overall.value,
        "interval": overall.interval,
        "tags": {tag: found.value for tag, found in by_tag.items()},
        "tag_intervals": {tag: found.interval for tag, found in by_tag.items()},
        "num_prompts": len(judged),
        "num_images": len(verdicts),
    }
    for name, is_seen in (("seen", True), ("unseen", False)):
        found = _estimate(entries, verdicts, mixed, is_seen) if mixed else None
        scores[name] = found and found.value
        scores[f"{name}_interval"] = found and found.interval
        scores[f"{name}_tags"] = {tag: _estimate(entries, verdicts, [tag], is_seen).value for tag in mixed}
    return scores


def _any(entries: Sequence[Entry], tag: str, is_seen: bool | None = None) -> bool:
    return any(entry["tag"] == tag and is_seen in (None, entry.get("seen", True)) for entry in entries)


def _estimate(
    entries: Sequence[Entry], verdicts: Sequence[tuple[int, bool]], tags: Sequence[str], is_seen: bool | None = None
) -> Estimate:
    """Mean over tags of the prompts of one kind, or of all; the images of one prompt are a cluster."""
    strata = [
        clustered(
            (index, correct)
            for index, correct in verdicts
            if entries[index]["tag"] == tag and is_seen in (None, entries[index].get("seen", True))
        )
        for tag in tags
    ]
    return estimate(*strata)


def _work(job: Job) -> tuple[list[dict[str, Any]], list[Item]]:
    remedy = "give the folder of a world of shapes with --data"
    entries = read_entries(job.options.world / PROMPTS_FILE, ("prompt", "tag", "include"), remedy)
    return entries, expand(GenevalShapes.name, len(entries), job.options.num_images, job.options.seed)


def _record(job: Job, item: Item, entry: Entry, image: Image.Image) -> dict[str, Any]:
    """The record of an image whose file is there; writes the prompt's metadata beside the samples."""
    detections = detect(image)
    verdict = judge(entry, detections, THRESHOLDS)
    metadata = images_root(job) / image_path(item).parents[1] / "metadata.jsonl"
    if not job.options.images and not metadata.exists():
        metadata.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    return {
        **drawing_record(job, item, entry["prompt"], image_path(item), image),
        "tag": entry["tag"],
        "correct": verdict.correct,
        "reason": verdict.reason,
        "detections": [asdict(detection) for detection in detections],
    }


def _bounds(job: Job, entries: Sequence[Entry], side: int) -> dict[str, Any]:
    """What no model can exceed: the same score for renders of the prompts themselves, as they are (`detector`) and after
    the model's image tokenizer (`ceiling`, None for a model without one)."""
    rng = np.random.default_rng([job.options.seed, 0])
    renders = [render(scene_for(entry, rng), side) for entry in entries]
    rebuilt = job.pipeline.reconstruct(renders, batch_size=job.options.batch_size)
    bounds: dict[str, Any] = {}
    for name, images in (("detector", renders), ("ceiling", rebuilt)):
        scores = images and score_verdicts(
            entries,
            [(index, judge_image(entries[index], image).correct) for index, image in enumerate(images)],
        )
        bounds[name] = scores and scores["overall"]
        bounds[f"{name}_tags"] = scores and scores["tags"]
    return bounds
