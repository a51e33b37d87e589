# SPDX-License-Identifier: Apache-2.0
"""GenEval on shapes: right drawings score 1, wrong ones 0, and a run goes on where it stopped."""

import json
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation.oracle import Oracle
from unigen.config.evaluation import DrawingConfig
from unigen.data.ranks import Ranks
from unigen.data.shapes.prompts import geneval_prompts
from unigen.data.shapes.render import render
from unigen.errors import EvaluationError
from unigen.evaluation.benchmarks import BENCHMARKS, find_benchmarks
from unigen.evaluation.geneval_shapes import judge_image, score_verdicts
from unigen.evaluation.job import Job, Options
from unigen.evaluation.prompt_scenes import scene_for
from unigen.evaluation.records import read_records
from unigen.evaluation.run import evaluate

BENCHMARK = find_benchmarks(["geneval_shapes"])


def run(oracle: Oracle, output: Path, world: Path, **options: Any) -> dict[str, Any]:
    results = evaluate(oracle, BENCHMARK, Options(output=output, world=world, **options), Ranks()).results
    assert results is not None
    return results


def test_right_drawings_score_one_and_stand_in_genevals_layout(world: Path, tmp_path: Path) -> None:
    results = run(Oracle(world), tmp_path, world)
    scores = results["geneval_shapes"]
    assert scores["overall"] == scores["seen"] == scores["unseen"] == scores["detector"] == 1.0
    assert set(scores["tags"]) == {"single_object", "two_object", "counting", "colors", "position", "color_attr"}
    assert (scores["num_prompts"], scores["num_images"]) == (12, 48)
    folder = tmp_path / "geneval_shapes" / "images" / "00011"
    assert sorted(file.name for file in (folder / "samples").iterdir()) == [f"{n:05d}.png" for n in range(4)]
    last = (world / "evaluation" / "geneval_shapes.jsonl").read_text().splitlines()[-1]
    assert json.loads((folder / "metadata.jsonl").read_text()) == json.loads(last)
    assert 25 < results["tokenizer"]["psnr"] < 45
    assert 0.9 < results["tokenizer"]["detected"] <= 1
    assert results["tokenizer"]["interval"][0] < results["tokenizer"]["psnr"] < results["tokenizer"]["interval"][1]
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_wrong_drawings_cost_what_they_are(world: Path, tmp_path: Path) -> None:
    scores = run(Oracle(world, wrong_every=4), tmp_path, world)["geneval_shapes"]
    assert scores["overall"] == pytest.approx(0.75)
    assert scores["interval"] == [0.75, 0.75]  # one of four images of every prompt: prompts do not differ
    record = next(one for one in read_records(tmp_path / "geneval_shapes").values() if not one["correct"])
    assert "found 0" in record["reason"]


def test_every_prompts_own_scene_is_what_the_judge_accepts() -> None:
    rng = np.random.default_rng(0)
    accepted = [judge_image(prompt, render(scene_for(prompt, rng), 32)).correct for prompt in geneval_prompts()]
    assert np.mean(accepted) >= 0.99


def test_tags_weigh_the_same_and_seen_is_compared_with_unseen_of_the_same_tags() -> None:
    entries = [
        {"tag": "colors", "seen": True},
        {"tag": "position", "seen": True},
        {"tag": "position", "seen": True},
        {"tag": "position", "seen": False},
    ]
    scores = score_verdicts(entries, [(0, False), (1, True), (2, True), (3, False)])
    assert scores["overall"] == pytest.approx((0 + 2 / 3) / 2)
    assert (scores["seen"], scores["unseen"]) == (1.0, 0.0)
    assert scores["unseen_tags"] == {"position": 0.0}


def test_a_stopped_run_goes_on_without_drawing_twice(world: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Oracle(world, stop_after=30), tmp_path, world)
    second = Oracle(world)
    resumed = run(second, tmp_path, world)
    assert len(second.drawn) == 48 - 30
    whole = run(Oracle(world), tmp_path / "whole", world)
    assert {**resumed["geneval_shapes"], "seconds": 0} == {**whole["geneval_shapes"], "seconds": 0}
    files = sorted((tmp_path / "geneval_shapes" / "images").rglob("*.png"))
    assert len(files) == 48
    for file in files:
        twin = tmp_path / "whole" / file.relative_to(tmp_path)
        assert file.read_bytes() == twin.read_bytes()


def test_a_finished_folder_is_scored_again_without_drawing(world: Path, tmp_path: Path) -> None:
    first = run(Oracle(world, wrong_every=3), tmp_path, world)
    idle = Oracle(world)
    again = run(idle, tmp_path, world)
    assert idle.drawn == []
    assert again["geneval_shapes"]["overall"] == first["geneval_shapes"]["overall"]


def test_a_damaged_image_is_drawn_again(world: Path, tmp_path: Path) -> None:
    run(Oracle(world), tmp_path, world)
    broken = tmp_path / "geneval_shapes" / "images" / "00003" / "samples" / "00002.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:50])
    second = Oracle(world)
    run(second, tmp_path, world)
    assert len(second.drawn) == 1
    assert broken.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seed": 1}, "seed was 0"),
        ({"num_images": 2}, "num_images was 1"),
        ({"drawing": DrawingConfig(steps=3)}, "drawing.steps"),
    ],
)
def test_other_settings_are_refused_in_the_same_folder(
    change: dict[str, Any], complaint: str, world: Path, tmp_path: Path
) -> None:
    run(Oracle(world), tmp_path, world, num_images=1)
    with pytest.raises(EvaluationError, match=complaint):
        run(Oracle(world), tmp_path, world, **{"num_images": 1, **change})


def test_another_models_weights_are_refused_in_the_same_folder(world: Path, tmp_path: Path) -> None:
    run(Oracle(world), tmp_path, world, num_images=1)
    with pytest.raises(EvaluationError, match=r"weights\.model was '0' and is now '1'"):
        run(Oracle(world, weights="1"), tmp_path, world, num_images=1)


def test_an_incomplete_folder_has_no_score(world: Path, tmp_path: Path) -> None:
    oracle = Oracle(world)
    options = Options(output=tmp_path, world=world)
    job = Job(oracle, options, tmp_path / "geneval_shapes", oracle.describe(), Ranks(rank=1, world_size=2))
    assert BENCHMARK[0].run(job) == []
    with pytest.raises(EvaluationError, match="24 of 48 items are not done"):
        BENCHMARK[0].score(job)
    run(oracle, tmp_path, world)  # another number of ranks finishes it
    assert len(oracle.drawn) == 48


def test_a_prompt_that_cannot_be_judged_fails_alone_and_leaves_no_score(world: Path, tmp_path: Path) -> None:
    file = tmp_path / "world" / "evaluation" / "geneval_shapes.jsonl"
    file.parent.mkdir(parents=True)
    lines = (world / "evaluation" / "geneval_shapes.jsonl").read_text().splitlines()[:3]
    damaged = json.loads(lines[1])
    damaged["include"][0]["position"] = ["beside", 0]
    file.write_text("\n".join([lines[0], json.dumps(damaged), lines[2]]) + "\n")
    outcome = evaluate(
        Oracle(world), BENCHMARK, Options(output=tmp_path / "out", world=tmp_path / "world", num_images=1), Ranks()
    )
    assert len(outcome.failures) == 1
    assert "00001/00000" in outcome.failures[0]
    assert "beside" in outcome.failures[0]
    assert outcome.results is not None
    assert "geneval_shapes" not in outcome.results
    assert len(read_records(tmp_path / "out" / "geneval_shapes")) == 2


def test_a_world_that_is_not_there_is_named_with_the_remedy(world: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"nowhere.*--data"):
        run(Oracle(world), tmp_path, tmp_path / "nowhere")


def test_an_unknown_benchmark_suggests_the_nearest() -> None:
    with pytest.raises(EvaluationError, match="did you mean geneval_shapes"):
        find_benchmarks(["geneval_shape"])
    assert [one.name for one in find_benchmarks(["vqa-shapes", "vqa_shapes", "geneval-shapes"])] == [
        "vqa_shapes",
        "geneval_shapes",
    ]
    assert all(BENCHMARKS[name]().name == name for name in BENCHMARKS)


def evaluate_as_rank(rank: int, port: int, world: Path, output: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    outcome = evaluate(Oracle(world), BENCHMARK, Options(output=output, world=world, num_images=2))
    assert (outcome.results is None) == (rank == 1)


def test_two_processes_give_the_files_and_scores_of_one(world: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    arguments = [(rank, port, world, tmp_path / "two") for rank in range(2)]
    processes = [context.Process(target=evaluate_as_rank, args=one) for one in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    one = run(Oracle(world), tmp_path / "one", world, num_images=2)["geneval_shapes"]
    two = json.loads((tmp_path / "two" / "results.json").read_text())["geneval_shapes"]
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    assert len(list((tmp_path / "two" / "geneval_shapes").glob("records-*.jsonl"))) == 2
    for file in sorted((tmp_path / "one").rglob("samples/*.png")):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
