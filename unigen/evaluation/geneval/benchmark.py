# SPDX-License-Identifier: Apache-2.0
"""GenEval (arXiv 2310.11513): does an image show what its prompt asks for? Judged by a detector, CLIP and the official rules.

<folder>/images/                     the official layout, see `drawing`; `--images` names such a folder drawn elsewhere
<folder>/<variant>/records-*.jsonl   verdicts; a variant is one detector, prompt file and set of thresholds
<folder>/<variant>/results.jsonl     the same in the official format
<folder>/<variant>/self_test.json    what was tested before judging
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from unigen.data.json_files import read_json, write_json, write_lines
from unigen.data.manifest import file_hash, open_run
from unigen.errors import EvaluationError
from unigen.evaluation.drawings import images_root
from unigen.evaluation.families import IMAGES, UAE, UNIFORK, UNIGEN
from unigen.evaluation.geneval.drawing import (
    draw_prompts,
    drawn_prompts,
    find_images,
    image_path,
    lay_out_prompt,
)
from unigen.evaluation.geneval.judge import Entry, ImageJudge, JudgeFiles, Judgement
from unigen.evaluation.geneval.pixels import open_upright
from unigen.evaluation.geneval.self_test import self_test
from unigen.evaluation.geneval.summary import Graded, summarise
from unigen.evaluation.items import Item, expand, read_entries
from unigen.evaluation.job import DrawnPrompt, Job
from unigen.evaluation.places import find_benchmark_file
from unigen.evaluation.records import RecordWriter, read_records

PROMPTS_FILE = "geneval/prompts/evaluation_metadata.jsonl"
RESULTS_NAME, SELF_TEST_NAME = "results.jsonl", "self_test.json"
RESULT_KEYS = ("filename", "tag", "prompt", "correct", "reason", "metadata", "details")
"""The official columns, in their order."""


class Geneval:
    name = "geneval"
    families = frozenset({UNIGEN, UNIFORK, UAE, IMAGES})

    def check(self, job: Job) -> None:
        open_run(job.folder, Work.of(job).identity(), writes=False)

    def run(self, job: Job) -> list[str]:
        work = Work.of(job)
        open_run(job.folder, work.identity(), writes=job.ranks.is_first)
        open_run(work.judged.folder, work.judge_identity(), writes=job.ranks.is_first)
        failures = draw_prompts(job, self.name, work.entries, work.possible(), lambda _entry, _image: {}, work.path)
        return failures + _judge_missing(work)

    def prompts(self, job: Job) -> list[DrawnPrompt]:
        return drawn_prompts(Work.of(job).entries)

    def lay_out(self, job: Job, prompt: DrawnPrompt, images: Sequence[Path], folder: Path) -> None:
        lay_out_prompt(prompt, images, folder)

    def score(self, job: Job) -> dict[str, Any]:
        work = Work.of(job)
        finished = work.judged.finished(self.name, work.items)
        graded = [Graded(item.index, record["tag"], record["correct"]) for item, record in finished.pairs]
        _write_results([record for _, record in finished.pairs], work.judged.folder / RESULTS_NAME)
        warnings = _warnings(work, [record for _, record in finished.pairs])
        return {
            self.name: {
                **summarise(graded),
                "variant": f"{self.name}/{work.variant}",
                "judge": work.files.describe(),
                "self_test": read_json(work.judged.folder / SELF_TEST_NAME),
                "prompts_sha256": work.prompts_sha256,
                **({"warnings": warnings} if warnings else {}),
                **finished.mark,
            }
        }


@dataclass(frozen=True)
class Work:
    """What there is to draw and to judge, and by whom."""

    job: Job
    entries: Sequence[Entry]
    items: Sequence[Item]
    prompts_sha256: str
    files: JudgeFiles

    @classmethod
    def of(cls, job: Job) -> "Work":
        """Find prompts and judge, before anything is drawn.

        Raises:
            EvaluationError: one is not there.
        """
        settings = job.options.geneval
        place = find_benchmark_file(settings.prompts, "geneval.prompts", PROMPTS_FILE)
        entries = read_entries(
            place, ("prompt", "tag", "include"), "give the official file or one like it by --prompts"
        )
        items = expand(Geneval.name, len(entries), job.options.num_images, job.options.seed)
        return cls(job, entries, items, file_hash(place), JudgeFiles.find(settings, job.options.data_root))

    @cached_property
    def variant(self) -> str:
        return self.files.variant(self.prompts_sha256)

    @property
    def judged(self) -> Job:
        """The same job in the folder of this variant's verdicts."""
        return replace(self.job, folder=self.job.folder / self.variant)

    @cached_property
    def elsewhere(self) -> Mapping[tuple[int, int], Path]:
        """The images that were drawn elsewhere."""
        options = self.job.options
        assert options.images is not None
        return find_images(
            options.images, self.entries, options.num_images, is_partial_allowed=options.is_partial_allowed
        )

    def possible(self) -> list[Item]:
        """The items that can be done: all, but for images that are missing where they were drawn elsewhere."""
        if not self.job.options.images:
            return list(self.items)
        return [item for item in self.items if (item.index, item.sample) in self.elsewhere]

    def path(self, item: Item) -> Path:
        """Where an image lies below the images' folder."""
        return self.elsewhere[item.index, item.sample] if self.job.options.images else image_path(item)

    def identity(self) -> dict[str, Any]:
        """What the drawings depend on."""
        settings = {"num_images": self.job.options.num_images, "drawing": self.job.options.drawing.given()}
        return self.job.identity(self.prompts_sha256, **settings)

    def judge_identity(self) -> dict[str, Any]:
        """What the verdicts depend on besides."""
        described = self.files.describe()
        hashes = {name: described[name]["sha256"] for name in ("detector", "clip")}
        return {**hashes, "settings": described["settings"], "prompts": self.prompts_sha256}


def _judge_missing(work: Work) -> list[str]:
    """Judge this rank's drawn images that have no verdict; one line for each that cannot be judged."""
    drawn, judged = read_records(work.job.folder), read_records(work.judged.folder)
    pending = [
        item
        for item in work.job.share(work.items)
        if item.item_id in drawn and not _is_of(judged.get(item.item_id), drawn[item.item_id])
    ]
    if not pending:
        return []
    judge = _load(work)
    writer = RecordWriter(work.judged.folder, work.job.ranks.rank)
    failures = []
    for item in work.job.progress(pending, len(pending), f"{Geneval.name}, judged"):
        path = images_root(work.job) / work.path(item)
        try:
            judgement = judge.judge(work.entries[item.index], open_upright(path))
        except EvaluationError as error:
            failures.append(f"{Geneval.name}, item {item.item_id}: {error}")
            continue
        pixels = drawn[item.item_id]["pixels_sha256"]
        writer.append(item, {**_record(work.entries[item.index], path, judgement), "pixels_sha256": pixels})
    return failures


def _load(work: Work) -> ImageJudge:
    """The judge on this rank's device, tested."""
    judge = work.files.load(torch.device(work.job.device))
    tested = self_test(judge, work.job.options.geneval.golden)
    if work.job.ranks.is_first:
        write_json(tested, work.judged.folder / SELF_TEST_NAME)
    return judge


def _is_of(verdict: Mapping[str, Any] | None, drawing: Mapping[str, Any]) -> bool:
    """Whether a verdict is over these very pixels."""
    return verdict is not None and verdict["pixels_sha256"] == drawing["pixels_sha256"]


def _record(entry: Entry, path: Path, judgement: Judgement) -> dict[str, Any]:
    """A verdict with the official columns, and the colours that it rests on."""
    colors = {name: [one.color for one in group if one.color] for name, group in judgement.objects.items()}
    return {
        "filename": str(path),
        "tag": entry["tag"],
        "prompt": entry["prompt"],
        "correct": judgement.verdict.correct,
        "reason": judgement.verdict.reason,
        "metadata": json.dumps(entry),
        "details": json.dumps(judgement.details),
        "colors": {name: found for name, found in colors.items() if found},
    }


def _write_results(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the official results file."""
    write_lines([{key: record[key] for key in RESULT_KEYS} for record in records], path)


def _warnings(work: Work, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader of the score has to know."""
    warnings = []
    if not work.files.detector.is_known:
        warnings.append(f"{work.files.detector.path} is not the checkpoint whose thresholds GenEval chose")
    if all(record["details"] == "{}" for record in records):
        warnings.append(
            f"no object was found in any of {len(records)} images: look at some, and at the detector's weights"
        )
    return warnings
