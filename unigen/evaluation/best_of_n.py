# SPDX-License-Identifier: Apache-2.0
"""Best-of-N over a benchmark of drawings: many drawings of each prompt are rated by the model itself, and the best are scored.

<folder>/<samples>/<item>/samples/<number>.png      every candidate, with `ratings_<rater>.jsonl` beside the samples
<folder>/<samples>_selected_prompt_<rater>/         the kept ones, in the benchmark's own layout
<folder>/<samples>_origin/                          as many without a choice: the first
<folder>/scores_<selection>/                        what the benchmark makes of either
<folder>/rating_table_<rater>.jsonl, stats_table_<rater>.csv
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from unigen.data.json_files import write_lines
from unigen.data.manifest import open_run
from unigen.data.whole_files import whole_file
from unigen.errors import EvaluationError
from unigen.evaluation.elsewhere import ImageFolder
from unigen.evaluation.families import IMAGES
from unigen.evaluation.items import expand
from unigen.evaluation.job import DrawingBenchmark, DrawnPrompt, Job
from unigen.evaluation.released_layout import settings_name
from unigen.evaluation.verifier_quality import verifier_quality
from unigen.generation.best_of_n import BestOf, BestOfN, Candidate, Prompt, Rater, Rating, Selection
from unigen.rewards.prompt_questions import read_item_questions
from unigen.rewards.verifier import STYLES, Style, Verifier

ORACLE = "oracle"
"""The rater that knows the truth, where the benchmark can tell it of a single image."""
STATISTICS = ("instance_id", "image_id", "yes_count", "total_questions", "score")
"""Columns of the table of scores, as in the released evaluation."""


class BestOfNBenchmark:
    """A benchmark of drawings, with the drawings chosen by the model out of many."""

    def __init__(self, base: DrawingBenchmark) -> None:
        self._base = base
        self.name = f"{base.name}_cot"
        self.families = base.families - {IMAGES}

    def check(self, job: Job) -> None:
        work = Work(self._base, job)
        self._base.check(work.plain)
        for rater in work.raters:
            work.best_of_n(rater)
        open_run(work.candidates, work.identity(), writes=False)

    def run(self, job: Job) -> list[str]:
        work = Work(self._base, job)
        open_run(work.candidates, work.identity(), writes=job.ranks.is_first)
        for rater in work.raters:
            self._select(work, rater)
        # the benchmark deals images out to ranks in another way than prompts are dealt out here
        job.ranks.gather([], at=f"the selections of {self.name}")
        failures = []
        for selection in work.selections:
            failures += self._base.run(work.scored_job(selection))
        return failures

    def score(self, job: Job) -> dict[str, Any]:
        work = Work(self._base, job)
        scores = {selection: self._base.score(work.scored_job(selection)) for selection in work.selections}
        of = {selection: next(iter(found.values())) for selection, found in scores.items()}
        lines = {rater: work.lines(rater) for rater in work.raters}
        truth = [line["score"] > 0 for line in lines[ORACLE]] if work.has_oracle else None
        verifiers = {}
        for rater in work.styles:
            _write_tables(lines[rater], rater, job.folder)
            verifiers[rater] = verifier_quality(lines[rater], truth)
        best = {rater: of[f"selected_prompt_{rater}"] for rater in work.raters}
        content = {
            **best[work.styles[0]],
            "selection": str(work.best_of),
            "verifier": work.styles[0],
            "best_of_n": {rater: found for rater, found in best.items() if rater != ORACLE},
            "first_of_n": of["origin"],
            "verifiers": verifiers,
            **({"oracle_best_of_n": best[ORACLE]} if work.has_oracle else {}),
        }
        return {self.name: content}

    def _select(self, work: "Work", rater: str) -> None:
        """Choose among the candidates of this rank's prompts, and put the chosen where the benchmark reads them."""
        job, num_kept = work.job, work.best_of.num_kept
        own = work.own_prompts()
        run = work.best_of_n(rater)
        selections = run.select(prompt for _, prompt in own)
        for (drawn, prompt), found in zip(
            own, job.progress(selections, len(own), f"{self.name}, {rater}, {work.best_of}"), strict=True
        ):
            chosen = {f"selected_prompt_{rater}": found.kept, "origin": list(range(num_kept))}
            for selection, samples in chosen.items():
                images = [prompt.path(sample) for sample in samples]
                self._base.lay_out(work.scored_job(selection), drawn, images, work.folder(selection))


@dataclass(frozen=True)
class Work:
    """What there is to draw, to rate and to score."""

    base: DrawingBenchmark
    job: Job

    @property
    def best_of(self) -> BestOf:
        return BestOf(self.job.options.best_of_n.num_drawn, self.job.options.best_of_n.num_kept)

    @property
    def styles(self) -> list[Style]:
        """The verifier's styles, the first of which gives the benchmark's own score.

        Raises:
            EvaluationError: there is no such style.
        """
        given = list(dict.fromkeys(self.job.options.best_of_n.verifiers))
        unknown = [name for name in given if name not in STYLES]
        if unknown or not given:
            what = f"best_of_n.verifiers has {unknown[0]!r}" if unknown else "best_of_n.verifiers is empty"
            raise EvaluationError(f"{what}; choose from {', '.join(STYLES)}")
        return cast(list[Style], given)

    @property
    def has_oracle(self) -> bool:
        return hasattr(self.base, "is_correct")

    @property
    def raters(self) -> list[str]:
        return [*self.styles, *([ORACLE] if self.has_oracle else [])]

    @property
    def selections(self) -> list[str]:
        return [*(f"selected_prompt_{rater}" for rater in self.raters), "origin"]

    @property
    def candidates(self) -> Path:
        """Folder of all candidates, named as in the released evaluation."""
        settings = settings_name(self.job.options.drawing, str(self.job.model.get("family")))
        return self.job.folder / f"t2i_samples_{settings}"

    def folder(self, selection: str) -> Path:
        """Where the images of a selection lie, in the benchmark's own layout."""
        return self.candidates.with_name(f"{self.candidates.name}_{selection}")

    def scored_job(self, selection: str) -> Job:
        """The benchmark's work over one selection."""
        options = replace(self.job.options, num_images=self.best_of.num_kept, images=self.folder(selection))
        pipeline = ImageFolder(_made(self.folder(selection)))
        return replace(self.job, pipeline=pipeline, options=options, folder=self.job.folder / f"scores_{selection}")

    def identity(self) -> dict[str, Any]:
        """What the candidates and their ratings depend on."""
        prompts = [[prompt.item_id, prompt.text] for prompt, _ in self.prompts]
        settings: dict[str, Any] = {"num_drawn": self.best_of.num_drawn, "num_kept": self.best_of.num_kept}
        if self.questions:
            settings["questions"] = _digest(self.questions)
        drawing = self.job.options.drawing.given()
        return self.job.identity(_digest(prompts), **settings, drawing=drawing)

    @property
    def plain(self) -> Job:
        """The benchmark's work without a choice."""
        return replace(self.job, options=replace(self.job.options, num_images=self.best_of.num_kept, images=None))

    @cached_property
    def prompts(self) -> list[tuple[DrawnPrompt, Prompt]]:
        """Every prompt; its first candidates are the images that the benchmark draws without a choice."""
        wanted = self.base.prompts(self.plain)
        num_drawn = self.best_of.num_drawn
        seeds = [item.seed for item in expand(self.base.name, len(wanted), num_drawn, self.job.options.seed)]
        return [
            (
                drawn,
                Prompt(
                    drawn.text,
                    self.candidates / drawn.item_id,
                    tuple(seeds[index * num_drawn : (index + 1) * num_drawn]),
                    drawn.item_id,
                    drawn.metadata,
                ),
            )
            for index, drawn in enumerate(wanted)
        ]

    def own_prompts(self) -> list[tuple[DrawnPrompt, Prompt]]:
        """This rank's prompts; all candidates of a prompt belong to one rank."""
        return self.prompts[self.job.ranks.rank :: self.job.ranks.world_size]

    def best_of_n(self, rater: str) -> BestOfN:
        options = self.job.options
        drawing = options.drawing.given()
        return BestOfN(self.job.pipeline, self._rater(rater), rater, self.best_of, options.batch_size, drawing)

    def _rater(self, name: str) -> Rater:
        if name == ORACLE:
            return Oracle(self.base)
        return Verifier(self.job.pipeline, cast(Style, name), self.job.options.batch_size, self.questions)

    @cached_property
    def questions(self) -> Mapping[str, Sequence[str]]:
        """Questions by the item id of a prompt, where they do not follow from its words."""
        file = self.job.options.best_of_n.questions
        if file:
            return read_item_questions(Path(file))
        return {
            drawn.item_id: drawn.metadata["questions"] for drawn, _ in self.prompts if "questions" in drawn.metadata
        }

    def lines(self, rater: str) -> list[dict[str, Any]]:
        """The records of all candidates of all prompts, in order.

        Raises:
            EvaluationError: some are missing.
        """
        run = self.best_of_n(rater)
        found = []
        for _, prompt in self.prompts:
            selection: Selection | None = run.read(prompt)
            if selection is None:
                raise EvaluationError(
                    f"{self.base.name}_cot: prompt {prompt.item_id} is not rated by {rater}; run the same command again"
                )
            found += selection.lines
        return found


class Oracle:
    """Rates by the truth."""

    def __init__(self, base: Any) -> None:
        self._is_correct = base.is_correct

    def __call__(self, candidates: Sequence[Candidate]) -> list[Rating]:
        return [Rating(float(self._is_correct(one.prompt.metadata, one.image))) for one in candidates]


def _write_tables(lines: Sequence[Mapping[str, Any]], rater: str, folder: Path) -> None:
    """Everything that is known of each candidate, and the scores alone as csv."""
    write_lines(lines, folder / f"rating_table_{rater}.jsonl")
    with (
        whole_file(folder / f"stats_table_{rater}.csv") as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(STATISTICS)
        writer.writerows(_statistics(lines))


def _statistics(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for line in lines:
        yield line["item_id"], line["sample"], line["num_yes"], line["num_questions"], line["score"]


def _digest(prompts: Any) -> str:
    return hashlib.sha256(json.dumps(prompts).encode()).hexdigest()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
