# SPDX-License-Identifier: Apache-2.0
"""DPG-Bench: four drawings of each long prompt, as the tiles of one image, and a judge's answers to questions about each tile.

<folder>/images/<item_id>/samples/<image, 5 digits>.png   the drawings
<folder>/grids-<style>/<item_id>.png                      what is judged; `--images` names a folder of such images
<folder>/answers-<judge>-<style>/                         questions and answers of a judge, see `answers` and `self_test`
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unigen.data.json_files import read_json, write_json
from unigen.data.manifest import open_run
from unigen.errors import EvaluationError
from unigen.evaluation.dpg.answers import TileQuestion, ask, read_answers, shown, write_questions
from unigen.evaluation.dpg.grid import make_grid
from unigen.evaluation.dpg.judges import OFFICIAL, Judge, ModelJudge, metric_of, open_judge
from unigen.evaluation.dpg.mplug import answer_in_own_environment, how_to_answer
from unigen.evaluation.dpg.scoring import Answers, score_dpg
from unigen.evaluation.dpg.self_test import KNOWN, QUESTIONS_NAME, SELF_TEST_NAME, known_questions, self_test
from unigen.evaluation.dpg.work import NAME, Work, draw_missing, make_grids
from unigen.evaluation.drawings import read_image
from unigen.evaluation.families import IMAGES, UAE, UNIFORK, UNIGEN
from unigen.evaluation.job import DrawnPrompt, Job
from unigen.evaluation.records import read_records
from unigen.generation.png import write_png


class Dpg:
    name = NAME
    families = frozenset({UNIGEN, UNIFORK, UAE, IMAGES})

    def check(self, job: Job) -> None:
        open_run(job.folder, Work.of(job).identity(), writes=False)
        metric_of(job.options.dpg)
        if job.options.dpg.judge_model is not None:
            job.require_model(job.options.dpg.judge_model)

    def run(self, job: Job) -> list[str]:
        work = Work.of(job)
        open_run(job.folder, work.identity(), writes=job.ranks.is_first)
        failures: list[str] = []
        if not job.options.images:
            draw_missing(work)
            make_grids(work)
        pending = work.questions_of_this_rank(failures)
        judge = _judge(work)
        if isinstance(judge, ModelJudge):
            _test_inside(work, judge, pending)
            answered = ask(judge, pending, job.options.batch_size, work.judge_folder, job.ranks.rank)
            for _ in job.progress(answered, len(pending), f"{self.name}, answers"):
                pass
        else:
            if job.ranks.is_first:
                write_questions(known_questions(work.judge_folder), work.judge_folder / QUESTIONS_NAME)
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
        num_unknown = 0 if isinstance(judge, ModelJudge) else _test_outside(work, judge)
        answers, num_missing = _collect(work, judge)
        num_missing += num_unknown
        is_partial = num_missing > 0 or len(answers) < len(work.prompts) or work.is_other_set
        if is_partial and not job.options.is_partial_allowed:
            raise EvaluationError(_what_is_missing(work, len(answers), num_missing))
        return {judge.metric: _scores(work, judge, answers, is_partial)}


def _judge(work: Work) -> Judge:
    judge = open_judge(work.job.options.dpg, work.job.load_model)
    identity = {**judge.identity, "questions": work.file_hash}
    open_run(work.judge_folder, identity, writes=work.job.ranks.is_first)
    return judge


def _test_inside(work: Work, judge: ModelJudge, pending: Sequence[TileQuestion]) -> None:
    """Test a judge on this rank's device, if there is anything to ask it."""
    if pending:
        known = known_questions(work.judge_folder)
        _keep_test(work, judge, list(judge.answers(shown(known), work.job.options.batch_size)))


def _test_outside(work: Work, judge: Judge) -> int:
    """Test a judge by the answers that it wrote; returns how many are missing, and then it is not tested."""
    given = read_answers(work.judge_folder)
    answers = [given[one.key] for one in known_questions(work.judge_folder) if one.key in given]
    if len(answers) == len(KNOWN):
        _keep_test(work, judge, answers)
    return len(KNOWN) - len(answers)


def _keep_test(work: Work, judge: Judge, answers: Sequence[str]) -> None:
    config = work.job.options.dpg
    tested = self_test(judge, answers, config.golden, is_official=config.judge == OFFICIAL)
    if work.job.ranks.is_first:
        write_json(tested, work.judge_folder / SELF_TEST_NAME)


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
        raise EvaluationError(f"{NAME}: no prompt can be scored; see {work.judge_folder}")
    records = read_records(work.job.folder).values()
    beyond = {record["prompt_id"] for record in records if record["num_tokens_beyond_row"]}
    return {
        **compat.as_json(),
        "variant": "compat",
        "fixed": fixed.as_json(),
        "judge": judge.identity,
        "self_test": read_json(work.judge_folder / SELF_TEST_NAME),
        "grid": work.job.options.dpg.grid,
        "num_images": len(answers) * work.job.options.num_images,
        "num_prompts_beyond_row": len(beyond),
        "num_malformed_dependencies": work.file.num_malformed,
        "questions_sha256": work.file_hash,
        **({"partial": True} if is_partial else {}),
    }


def _what_is_missing(work: Work, num_prompts: int, num_answers: int) -> str:
    if num_answers:
        return f"{NAME}: {num_answers} answers are missing; {how_to_answer(work.job.options.dpg, work.judge_folder)}"
    return f"{NAME}: {len(work.prompts) - num_prompts} of {len(work.prompts)} prompts have no whole image"
