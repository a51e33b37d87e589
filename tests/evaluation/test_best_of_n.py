# SPDX-License-Identifier: Apache-2.0
"""Best-of-N over benchmarks: the kept images are scored beside the first ones, and a stopped run goes on."""

import csv
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.oracle import Oracle
from unigen.config.evaluation import BestOfNConfig, DpgConfig, DrawingConfig
from unigen.data.ranks import Ranks
from unigen.data.shapes.detector import detect
from unigen.errors import EvaluationError
from unigen.evaluation.benchmarks import find_benchmarks
from unigen.evaluation.dpg.benchmark import Dpg
from unigen.evaluation.job import DrawnPrompt, Job, Options
from unigen.evaluation.run import evaluate
from unigen.evaluation.tables import scores
from unigen.evaluation.verifier_quality import area_under_curve, balanced_accuracy, verifier_quality
from unigen.generation.pipeline import AskRequest

STEM = "t2i_samples_step16_scale6"
NUM_PROMPTS = 4


class Rater(Oracle):
    """Draws nothing for every other candidate, and rates what it sees: yes if there is something."""

    def __init__(self, world: Path, *, stop_after_ratings: int | None = None, **options: Any) -> None:
        super().__init__(world, wrong_every=2, **options)
        self.rated: list[str] = []
        self._stop_after_ratings = stop_after_ratings

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        for request in requests:
            if self._stop_after_ratings is not None and len(self.rated) >= self._stop_after_ratings:
                raise KeyboardInterrupt
            self.rated.append(request.question)
            said = "Yes" if detect(request.images[0]) else "No"
            yield f"<think_start> is it there? {said} <think_end> <answer_start> {said} <answer_end>"


@pytest.fixture(scope="module")
def few(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with a prompt of every other kind."""
    folder = tmp_path_factory.mktemp("few")
    shutil.copytree(world / "evaluation", folder / "evaluation")
    file = folder / "evaluation/geneval_shapes.jsonl"
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[::3]))
    return folder


@pytest.fixture(scope="module")
def finished(few: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run's folder, which tests only read, and its results."""
    output = tmp_path_factory.mktemp("finished")
    return output, run(Rater(few), options(few, output))


def options(world: Path, output: Path, **changes: Any) -> Options:
    chosen = BestOfNConfig(num_drawn=4, num_kept=2, **changes)
    return Options(output=output, world=world, best_of_n=chosen, drawing=DrawingConfig(steps=16), batch_size=4)


def run(rater: Rater, chosen: Options, name: str = "geneval_shapes_cot") -> dict[str, Any]:
    outcome = evaluate(rater, find_benchmarks([name]), chosen, Ranks())
    assert outcome.failures == []
    assert outcome.results is not None
    return outcome.results


def test_the_kept_images_are_scored_beside_the_first_and_the_truly_best(finished: tuple[Path, dict[str, Any]]) -> None:
    _, results = finished
    found = results["geneval_shapes_cot"]
    assert found["selection"] == "4 drawn, best 2 kept"
    assert found["overall"] == found["best_of_n"]["think"]["overall"] == found["oracle_best_of_n"]["overall"] == 1.0
    assert found["first_of_n"]["overall"] == 0.5
    assert (found["num_images"], found["first_of_n"]["num_images"]) == (8, 8)
    assert found["verifiers"]["think"] == {
        "num_rated": 16,
        "parse_failures": 0,
        "accepted": 0.5,
        "correct": 0.5,
        "balanced_accuracy": 1.0,
        "auc": 1.0,
    }
    names = [score.name for score in scores(results)]
    assert names == ["think, 4 drawn, best 2 kept", "first", "oracle"]


def test_folders_and_tables_are_those_of_the_released_evaluation(finished: tuple[Path, dict[str, Any]]) -> None:
    folder = finished[0] / "geneval_shapes_cot"
    for name, count in ((STEM, 4), (f"{STEM}_selected_prompt_think", 2), (f"{STEM}_origin", 2)):
        samples = sorted(path.name for path in (folder / name / "00003/samples").iterdir())
        assert samples == [f"{sample:05d}.png" for sample in range(count)]
    entry = json.loads((folder / f"{STEM}_selected_prompt_think/00003/metadata.jsonl").read_text())
    lines = [json.loads(line) for line in (folder / "rating_table_think.jsonl").read_text().splitlines()]
    assert [(line["item_id"], line["sample"]) for line in lines[12:16]] == [("00003", sample) for sample in range(4)]
    assert entry["prompt"] == lines[12]["prompt"]
    assert lines[12]["texts"][0].startswith("<think_start> is it there?")
    kept = [line["sample"] for line in lines[12:16] if line["is_kept"]]
    for place, sample in enumerate(sorted(kept, key=lambda sample: lines[12 + sample]["rank"])):
        chosen = folder / f"{STEM}_selected_prompt_think/00003/samples/{place:05d}.png"
        assert chosen.read_bytes() == (folder / STEM / f"00003/samples/{sample:05d}.png").read_bytes()
    with (folder / "stats_table_think.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["instance_id", "image_id", "yes_count", "total_questions", "score"]
    assert rows[1:3] == [["00000", "0", "1", "1", "1.0"], ["00000", "1", "0", "1", "0.0"]]
    assert len(rows) == 1 + 16


def test_the_first_candidates_are_what_the_plain_benchmark_draws(
    few: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    plain = Oracle(few)
    evaluate(plain, find_benchmarks(["geneval_shapes"]), replace(options(few, tmp_path), num_images=4), Ranks())
    lines = (finished[0] / "geneval_shapes_cot/rating_table_think.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [request.seed for request in plain.drawn]


@pytest.mark.parametrize("stop", [{"stop_after": 9}, {"stop_after_ratings": 9}])
def test_a_stopped_run_goes_on_with_nothing_lost_or_done_twice(stop: dict[str, int], few: Path, tmp_path: Path) -> None:
    broken, rest, again = Rater(few, **stop), Rater(few), Rater(few)
    with pytest.raises(KeyboardInterrupt):
        run(broken, options(few, tmp_path))
    assert run(rest, options(few, tmp_path))["geneval_shapes_cot"]["num_images"] == 2 * NUM_PROMPTS
    assert sorted(one.seed for one in broken.drawn + rest.drawn) == sorted(
        {one.seed for one in broken.drawn + rest.drawn}
    )
    table = (tmp_path / "geneval_shapes_cot/rating_table_think.jsonl").read_text().splitlines()
    assert len({(json.loads(line)["item_id"], json.loads(line)["sample"]) for line in table}) == len(table) == 16
    run(again, options(few, tmp_path))
    assert again.drawn == again.rated == []


def test_prompts_are_dealt_out_to_ranks_whole(few: Path, tmp_path: Path) -> None:
    chosen = options(few, tmp_path)

    class Two(Ranks):
        def gather(self, failures: list[str], *, at: str) -> list[str]:
            return failures

    raters = [Rater(few), Rater(few)]
    benchmark = find_benchmarks(["geneval_shapes_cot"])[0]
    jobs = [
        Job(rater, chosen, tmp_path / benchmark.name, rater.describe(), Two(rank, 2))
        for rank, rater in enumerate(raters)
    ]
    assert benchmark.run(jobs[0]) != [], "this rank scored what the other, which it waits for, had not chosen yet"
    assert benchmark.run(jobs[1]) == benchmark.run(jobs[0]) == []
    prompts = [{request.prompt for request in rater.drawn} for rater in raters]
    assert not prompts[0] & prompts[1]
    assert [len(rater.drawn) for rater in raters] == [8, 8]
    assert benchmark.score(jobs[0])["geneval_shapes_cot"]["num_images"] == 8


def test_another_selection_needs_another_folder(few: Path, finished: tuple[Path, dict[str, Any]]) -> None:
    changed = replace(options(few, finished[0]), best_of_n=BestOfNConfig(num_drawn=5, num_kept=2))
    with pytest.raises(EvaluationError, match="num_drawn was 4 and is now 5"):
        run(Rater(few), changed)


def test_other_questions_need_another_folder(few: Path, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    chosen = options(few, tmp_path / "out", verifiers=("rule",), questions=str(file))
    asked = [{"item_id": f"{index:05d}", "question": "is it there?"} for index in range(NUM_PROMPTS)]
    file.write_text("".join(json.dumps(one) + "\n" for one in asked))
    run(Rater(few), chosen)
    file.write_text("".join(json.dumps({**one, "question": "is it gone?"}) + "\n" for one in asked))
    with pytest.raises(EvaluationError, match="questions was"):
        run(Rater(few), chosen)


@pytest.mark.parametrize("styles", [(), ("breakdown",)])
def test_an_unknown_style_is_refused_by_name(styles: tuple[str, ...], world: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"best_of_n.verifiers .*choose from think, outcome, rule, probability"):
        run(Rater(world), options(world, tmp_path, verifiers=styles))


def test_the_names_of_the_readme_are_known() -> None:
    names = [benchmark.name for benchmark in find_benchmarks(["cot-gen", "cot-dpg"])]
    assert names == ["geneval_cot", "dpg_cot"]


def test_dpg_takes_kept_images_as_its_grid(world: Path, tmp_path: Path) -> None:
    paths = []
    for sample in range(4):
        paths.append(tmp_path / f"{sample}.png")
        Image.new("RGB", (8, 8), (sample, 0, 0)).save(paths[-1])
    job = Job(Oracle(world), Options(output=tmp_path, dpg=DpgConfig(grid="plain")), tmp_path, {})
    Dpg().lay_out(job, DrawnPrompt("dusk7", "dusk"), paths, tmp_path / "grids")
    with Image.open(tmp_path / "grids/dusk7.png") as grid:
        assert grid.size == (16, 16)
        assert [grid.getpixel(place)[0] for place in ((0, 0), (8, 0), (0, 8), (8, 8))] == [0, 1, 2, 3]


def line(num_yes: int, num_questions: int, probability: float = 0.0, is_parsed: bool = True) -> dict[str, Any]:
    score = num_yes / num_questions
    numbers = {"num_yes": num_yes, "num_questions": num_questions, "probability": probability}
    return {"score": score, "is_parsed": is_parsed, **numbers}


def test_a_verifier_is_judged_by_the_truth() -> None:
    lines = [line(2, 2, 0.9), line(2, 2, 0.2), line(1, 2, 0.3), line(0, 1, 0.0, is_parsed=False)]
    found = verifier_quality(lines, [True, False, True, False])
    assert (found["num_rated"], found["parse_failures"], found["accepted"]) == (4, 1, 0.5)
    assert (found["balanced_accuracy"], found["auc"]) == (0.5, 0.75)
    assert "auc" not in verifier_quality(lines, None)


@pytest.mark.parametrize(
    ("grades", "truth", "area"),
    [
        ([(0.0, 0.0), (1.0, 0.0)], [False, True], 1.0),
        ([(1.0, 0.1), (1.0, 0.9)], [False, True], 1.0),
        ([(1.0, 0.5), (1.0, 0.5)], [False, True], 0.5),
        ([(1.0, 0.5), (0.0, 0.9)], [False, True], 0.0),
        ([(1.0, 0.5)], [True], None),
    ],
)
def test_the_area_under_the_curve_counts_a_tie_half(
    grades: Sequence[tuple[float, float]], truth: Sequence[bool], area: float | None
) -> None:
    assert area_under_curve(grades, truth) == area


def test_balanced_accuracy_needs_both_kinds() -> None:
    assert balanced_accuracy([True, True, False], [True, False, False]) == 0.75
    assert balanced_accuracy([True], [True]) is None
