# SPDX-License-Identifier: Apache-2.0
"""What there is to draw and to ask in DPG-Bench, and the drawing itself: a prompt's images, and one grid of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.data.manifest import file_hash
from unigen.errors import EvaluationError
from unigen.evaluation.dpg.answers import TileQuestion, read_answers, tile_questions
from unigen.evaluation.dpg.grid import make_grid
from unigen.evaluation.dpg.prompts import Prompt, prompts_hash, read_prompts
from unigen.evaluation.dpg.questions import Question, QuestionFile, read_question_file, require_questions
from unigen.evaluation.drawings import draw_items, drawing_record, images_root, is_drawn, read_image
from unigen.evaluation.items import Item, expand
from unigen.evaluation.job import Job
from unigen.evaluation.places import find_benchmark_file
from unigen.evaluation.records import RecordWriter, read_records
from unigen.generation.png import is_whole_image, write_png

NAME = "dpg"
NUM_TILES = (1, 4)


@dataclass(frozen=True)
class Work:
    """What there is to draw and to ask."""

    job: Job
    prompts: Sequence[Prompt]
    file: QuestionFile
    file_hash: str
    items: Sequence[Item]

    @classmethod
    def of(cls, job: Job) -> "Work":
        """Read prompts and questions.

        Raises:
            EvaluationError: they are not there, not of one version, or of another number than that of the benchmark.
        """
        config, num_images = job.options.dpg, job.options.num_images
        if num_images not in NUM_TILES:
            raise EvaluationError(f"dpg draws 1 or 4 images of each prompt, not {num_images}; give --num-images 4")
        prompts = read_prompts(find_benchmark_file(config.prompts, "dpg.prompts", "dpg_bench/prompts"))
        place = find_benchmark_file(config.questions, "dpg.questions", "dpg_bench/dpg_bench.csv")
        file = read_question_file(place)
        require_questions(file, [prompt.item_id for prompt in prompts], place)
        work = cls(job, prompts, file, file_hash(place), expand(NAME, len(prompts), num_images, job.options.seed))
        if work.is_other_set and not job.options.is_partial_allowed:
            raise EvaluationError(
                f"dpg has {config.num_prompts} prompts, but here are {len(prompts)}; run bash scripts/setup_eval.sh, set "
                f"dpg.num_prompts={len(prompts)} for a set of your own, or --allow-partial"
            )
        return work

    @property
    def is_other_set(self) -> bool:
        return len(self.prompts) != self.job.options.dpg.num_prompts

    @property
    def grids(self) -> Path:
        """The folder of the images that are judged."""
        return self.job.options.images or self.job.folder / f"grids-{self.job.options.dpg.grid}"

    @property
    def judge_folder(self) -> Path:
        """The folder of one judge over one style of grids."""
        config = self.job.options.dpg
        return self.job.folder / f"answers-{config.judge_name or config.judge}-{config.grid}"

    def identity(self) -> dict[str, Any]:
        """What the drawings depend on; grids and answers have folders of their own."""
        settings = {"num_images": self.job.options.num_images, "drawing": self.job.options.drawing.given()}
        return self.job.identity(prompts_hash(self.prompts), **settings)

    def own(self) -> list[int]:
        """This rank's prompts. A prompt's images belong to one rank, which makes one grid of them."""
        return list(range(len(self.prompts)))[self.job.ranks.rank :: self.job.ranks.world_size]

    def path(self, item: Item) -> Path:
        """Where a drawing lies below the images' folder."""
        return Path(self.prompts[item.index].item_id, "samples", f"{item.sample:05d}.png")

    def grid(self, index: int) -> Path:
        return self.grids / f"{self.prompts[index].item_id}.png"

    def asked(self, index: int, questions: Mapping[str, Mapping[int, Question]]) -> list[TileQuestion]:
        """The questions about one prompt's image.

        Raises:
            EvaluationError: the image cannot be judged.
        """
        item_id, options = self.prompts[index].item_id, self.job.options
        return tile_questions(item_id, self.grid(index), questions[item_id], options.num_images, options.dpg.grid)

    def questions_of_this_rank(self, failures: list[str]) -> list[TileQuestion]:
        """What is not answered yet, each question about the same pixels once; `failures` gets a line for each bad image."""
        answered, questions = read_answers(self.judge_folder), self.file.by_item()
        pending: dict[str, TileQuestion] = {}
        for index in self.own():
            try:
                pending |= {one.key: one for one in self.asked(index, questions) if one.key not in answered}
            except EvaluationError as error:
                failures.append(f"{NAME}, prompt {self.prompts[index].item_id}: {error}")
        return list(pending.values())


def draw_missing(work: Work) -> None:
    """Draw what this rank's prompts lack."""
    job, own = work.job, set(work.own())
    records = read_records(job.folder)
    pending = [item for item in work.items if item.index in own and not is_drawn(job, item, records, work.path(item))]
    writer = RecordWriter(job.folder, job.ranks.rank)
    beyond = {index: job.pipeline.num_beyond_row(work.prompts[index].text) for index in {one.index for one in pending}}
    drawn = draw_items(job, pending, lambda item: work.prompts[item.index].text, work.path, NAME, [])
    for drawing in drawn:
        item, prompt = drawing.item, work.prompts[drawing.item.index]
        record = drawing_record(job, drawing, prompt.text, work.path(item))
        writer.append(item, {**record, "prompt_id": prompt.item_id, "num_tokens_beyond_row": beyond[item.index]})


def make_grids(work: Work) -> None:
    """Make the grids of this rank's prompts that are not there."""
    root, num_images = images_root(work.job), work.job.options.num_images
    for index in work.own():
        if is_whole_image(work.grid(index)):
            continue
        first = index * num_images
        images = [read_image(root / work.path(item)) for item in work.items[first : first + num_images]]
        write_png(make_grid(images, work.job.options.dpg.grid), work.grid(index), {"prompt": work.prompts[index].text})
