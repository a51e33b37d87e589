# SPDX-License-Identifier: Apache-2.0
"""DPG-Bench: four drawings of each long prompt, as the tiles of one image, and a judge's answers to questions about each tile.

<folder>/images/<item_id>/samples/<image, 5 digits>.png   the drawings
<folder>/grids-<style>/<item_id>.png                      what is judged; `--images` names a folder of such images
<folder>/<metric>/                                        questions and answers of a judge, see `answers`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.data.manifest import file_hash, open_run
from unigen.errors import EvaluationError
from unigen.evaluation.dpg.answers import TileQuestion, ask, read_answers, tile_questions, write_questions
from unigen.evaluation.dpg.grid import make_grid
from unigen.evaluation.dpg.judges import Judge, ModelJudge, open_judge
from unigen.evaluation.dpg.mplug import answer_in_own_environment, how_to_answer
from unigen.evaluation.dpg.prompts import Prompt, prompts_hash, read_prompts
from unigen.evaluation.dpg.questions import Question, QuestionFile, read_questions, require_questions
from unigen.evaluation.dpg.scoring import Answers, score_dpg
from unigen.evaluation.drawings import draw_items, drawing_record, images_root, is_drawn, read_image
from unigen.evaluation.families import IMAGES, UNIFORK, UNIGEN
from unigen.evaluation.items import Item, expand
from unigen.evaluation.job import DrawnPrompt, Job
from unigen.evaluation.places import find_benchmark_file
from unigen.evaluation.records import RecordWriter, read_records
from unigen.generation.png import is_whole_image, write_png

NUM_TILES = (1, 4)


class Dpg:
    name = "dpg"
    families = frozenset({UNIGEN, UNIFORK, IMAGES})

    def run(self, job: Job) -> list[str]:
        work = Work.of(job)
        open_run(job.folder, work.identity(), writes=job.ranks.is_first)
        failures: list[str] = []
        if not job.options.images:
            _draw(work)
            _make_grids(work)
        pending = work.questions_of_this_rank(failures)
        judge = _judge(work)
        if isinstance(judge, ModelJudge):
            answered = ask(judge, pending, job.options.batch_size, work.judge_folder, job.ranks.rank)
            for _ in job.progress(answered, len(pending), f"{self.name}, answers"):
                pass
        else:
            write_questions(pending, work.judge_folder / f"questions-{job.ranks.rank}.jsonl")
        return failures

    def prompts(self, job: Job) -> list[DrawnPrompt]:
        work = Work.of(job)
        asked = work.file.by_item()
        return [
            DrawnPrompt(
                prompt.item_id,
                prompt.text,
                {"questions": [question.text for question in asked[prompt.item_id].values()]},
            )
            for prompt in work.prompts
        ]

    def lay_out(self, job: Job, prompt: DrawnPrompt, images: Sequence[Path], folder: Path) -> None:
        grid = make_grid([read_image(path) for path in images], job.options.dpg.grid)
        write_png(grid, folder / f"{prompt.item_id}.png", {"prompt": prompt.text})

    def score(self, job: Job) -> dict[str, Any]:
        work = Work.of(job)
        judge = _judge(work)
        if job.options.dpg.judge_python and not isinstance(judge, ModelJudge):
            answer_in_own_environment(job.options.dpg.judge_python, work.judge_folder)
        answers, num_missing = _collect(work, judge)
        is_partial = num_missing > 0 or len(answers) < len(work.prompts) or work.is_other_set
        if is_partial and not job.options.is_partial_allowed:
            raise EvaluationError(_what_is_missing(work, len(answers), num_missing))
        return {judge.metric: _scores(work, judge, answers, is_partial)}


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
        file = read_questions(place)
        require_questions(file, [prompt.item_id for prompt in prompts], place)
        work = cls(job, prompts, file, file_hash(place), expand(Dpg.name, len(prompts), num_images, job.options.seed))
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
                failures.append(f"{Dpg.name}, prompt {self.prompts[index].item_id}: {error}")
        return list(pending.values())


def _draw(work: Work) -> None:
    job, own = work.job, set(work.own())
    records = read_records(job.folder)
    pending = [item for item in work.items if item.index in own and not is_drawn(job, item, records, work.path(item))]
    writer = RecordWriter(job.folder, job.ranks.rank)
    beyond = {index: job.pipeline.num_beyond_row(work.prompts[index].text) for index in {one.index for one in pending}}
    drawn = draw_items(job, pending, lambda item: work.prompts[item.index].text, work.path, Dpg.name, [])
    for item, image in drawn:
        prompt = work.prompts[item.index]
        record = drawing_record(job, item, prompt.text, work.path(item), image)
        writer.append(item, {**record, "prompt_id": prompt.item_id, "num_tokens_beyond_row": beyond[item.index]})


def _make_grids(work: Work) -> None:
    root, num_images = images_root(work.job), work.job.options.num_images
    for index in work.own():
        if is_whole_image(work.grid(index)):
            continue
        first = index * num_images
        images = [read_image(root / work.path(item)) for item in work.items[first : first + num_images]]
        write_png(make_grid(images, work.job.options.dpg.grid), work.grid(index), {"prompt": work.prompts[index].text})


def _judge(work: Work) -> Judge:
    judge = open_judge(work.job.options.dpg, work.job.load_model)
    identity = {**judge.identity, "questions": work.file_hash}
    open_run(work.judge_folder, identity, writes=work.job.ranks.is_first)
    return judge


def _collect(work: Work, judge: Judge) -> tuple[dict[str, list[Answers]], int]:
    """The answers for each tile of the prompts that have all of them, and how many answers are missing."""
    given, questions = read_answers(work.judge_folder), work.file.by_item()
    answers: dict[str, list[Answers]] = {}
    num_missing = 0
    for index, prompt in enumerate(work.prompts):
        try:
            asked = work.asked(index, questions)
        except EvaluationError:  # said by `run`
            continue
        missing = sum(one.key not in given for one in asked)
        num_missing += missing
        if not missing:
            tiles: list[dict[int, bool]] = [{} for _ in range(work.job.options.num_images)]
            for one in asked:
                tiles[one.tile][one.number] = judge.is_yes(given[one.key])
            answers[prompt.item_id] = [*tiles]
    return answers, num_missing


def _scores(work: Work, judge: Judge, answers: Mapping[str, Sequence[Answers]], is_partial: bool) -> dict[str, Any]:
    compat, fixed = (score_dpg(work.file, answers, variant) for variant in ("compat", "fixed"))
    if compat is None or fixed is None:
        raise EvaluationError(f"{Dpg.name}: no prompt can be scored; see {work.judge_folder}")
    records = read_records(work.job.folder).values()
    beyond = {record["prompt_id"] for record in records if record["num_tokens_beyond_row"]}
    return {
        **compat.as_json(),
        "variant": "compat",
        "fixed": fixed.as_json(),
        "judge": judge.identity,
        "grid": work.job.options.dpg.grid,
        "num_images": len(answers) * work.job.options.num_images,
        "num_prompts_beyond_row": len(beyond),
        "num_malformed_dependencies": work.file.num_malformed,
        "questions_sha256": work.file_hash,
        **({"partial": True} if is_partial else {}),
    }


def _what_is_missing(work: Work, num_prompts: int, num_answers: int) -> str:
    if num_answers:
        return (
            f"{Dpg.name}: {num_answers} answers are missing; {how_to_answer(work.job.options.dpg, work.judge_folder)}"
        )
    return f"{Dpg.name}: {len(work.prompts) - num_prompts} of {len(work.prompts)} prompts have no whole image"
