# SPDX-License-Identifier: Apache-2.0
"""GenEval in the world of shapes: does an image show what its prompt asks for? Judged by GenEval's rule.

Files, in GenEval's own layout: `images/<prompt, 5 digits>/metadata.jsonl` and `images/<prompt>/samples/<image, 5 digits>.png`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unigen.data.manifest import file_hash, open_run
from unigen.data.shapes.detector import detect
from unigen.data.shapes.render import render
from unigen.evaluation.families import IMAGES, UAE, UNIFORK, UNIGEN
from unigen.evaluation.geneval.drawing import draw_prompts, drawn_prompts, lay_out_prompt
from unigen.evaluation.geneval.summary import Graded, estimate_tags, present_tags, summarise
from unigen.evaluation.items import Item, expand, read_entries
from unigen.evaluation.job import DrawnPrompt, Job
from unigen.evaluation.prompt_scenes import scene_for
from unigen.evaluation.tokenizer_quality import score_tokenizer
from unigen.rewards.geneval_rules import judge
from unigen.rewards.shapes import THRESHOLDS, judge_image

PROMPTS_FILE = "evaluation/geneval_shapes.jsonl"

Entry = Mapping[str, Any]


class GenevalShapes:
    name = "geneval_shapes"
    families = frozenset({UNIGEN, UNIFORK, UAE, IMAGES})

    def check(self, job: Job) -> None:
        _work(job)
        open_run(job.folder, _identity(job), writes=False)

    def run(self, job: Job) -> list[str]:
        entries, items = _work(job)
        open_run(job.folder, _identity(job), writes=job.ranks.is_first)
        return draw_prompts(job, self.name, entries, items, _grade)

    def prompts(self, job: Job) -> list[DrawnPrompt]:
        return drawn_prompts(_work(job)[0])

    def lay_out(self, job: Job, prompt: DrawnPrompt, images: Sequence[Path], folder: Path) -> None:
        lay_out_prompt(prompt, images, folder)

    def is_correct(self, entry: Entry, image: Image.Image) -> bool:
        """The truth about an image, by which a rater can be judged."""
        return judge_image(entry, image).correct

    def score(self, job: Job) -> dict[str, Any]:
        entries, items = _work(job)
        finished = job.finished(self.name, items)
        verdicts = [(item.index, record["correct"]) for item, record in finished.pairs]
        scores = score_verdicts(entries, verdicts)
        bounds = _bounds(job, entries, finished.pairs[0][1]["width"])
        results = {self.name: {**scores, **bounds, **finished.mark}}
        quality = score_tokenizer(job)
        return results if quality is None else {**results, "tokenizer": quality}


def score_verdicts(entries: Sequence[Entry], verdicts: Sequence[tuple[int, bool]]) -> dict[str, Any]:
    """Scores of (prompt index, correct) pairs.

    `overall` is the unweighted mean over tags, as in GenEval. `seen` and `unseen` compare like with like: both are means
    over the tags that have prompts of either kind.
    """
    graded = [Graded(index, entries[index]["tag"], correct) for index, correct in verdicts]
    is_seen = [entries[index].get("seen", True) for index, _ in verdicts]
    kinds = {
        wanted: [one for one, seen in zip(graded, is_seen, strict=True) if seen is wanted] for wanted in (True, False)
    }
    mixed = [tag for tag in present_tags(kinds[True]) if tag in present_tags(kinds[False])]
    scores = summarise(graded)
    for name, wanted in (("seen", True), ("unseen", False)):
        found = estimate_tags(kinds[wanted], mixed) if mixed else None
        scores[name] = found and found.value
        scores[f"{name}_interval"] = found and found.interval
        scores[f"{name}_tags"] = {tag: estimate_tags(kinds[wanted], [tag]).value for tag in mixed}
    return scores


def _work(job: Job) -> tuple[list[dict[str, Any]], list[Item]]:
    remedy = "give the folder of a world of shapes with --data"
    entries = read_entries(job.options.world / PROMPTS_FILE, ("prompt", "tag", "include"), remedy)
    return entries, expand(GenevalShapes.name, len(entries), job.options.num_images, job.options.seed)


def _identity(job: Job) -> dict[str, Any]:
    """What the drawings depend on."""
    settings = {"num_images": job.options.num_images, "drawing": job.options.drawing.given()}
    return job.identity(file_hash(job.options.world / PROMPTS_FILE), **settings)


def _grade(entry: Entry, image: Image.Image) -> dict[str, Any]:
    """What the record of an image says of it."""
    detections = detect(image)
    verdict = judge(entry, detections, THRESHOLDS)
    return {
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
