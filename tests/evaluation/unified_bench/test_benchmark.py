# SPDX-License-Identifier: Apache-2.0
"""Unified-Bench over a model: captioned, drawn again, compared; gone on with after a stop; refused where something is missing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.unified_bench.folders import tiny_choices, write_pictures
from tests.evaluation.unified_bench.redrawer import Redrawer
from unigen.config.evaluation import UNIFIED_BENCH_METRICS, UnifiedBenchConfig
from unigen.data.ranks import Ranks
from unigen.errors import EvaluationError
from unigen.evaluation.benchmarks import find_benchmarks
from unigen.evaluation.comparison import markdown_table
from unigen.evaluation.job import Job, Options
from unigen.evaluation.run import Outcome, evaluate

BENCHMARK = find_benchmarks(["unified-bench"])
ONE = ("dinov2",)


def options(pictures: Path, output: Path, data_root: Path, **settings: Any) -> Options:
    chosen = {"images": str(pictures), "num_images": 5, "encoders": tiny_choices(), **settings}
    return Options(output=output, data_root=data_root, batch_size=2, unified_bench=UnifiedBenchConfig(**chosen))


def run(model: Redrawer, pictures: Path, output: Path, data_root: Path, **settings: Any) -> Outcome:
    return evaluate(model, BENCHMARK, options(pictures, output, data_root, **settings), Ranks())


def scores_of(outcome: Outcome) -> dict[str, Any]:
    assert outcome.failures == []
    assert outcome.results is not None
    found: dict[str, Any] = outcome.results["unified_bench"]
    return found


def test_a_model_that_redraws_exactly_scores_100_and_one_that_forgets_less(
    pictures: Path, data_root: Path, tmp_path: Path
) -> None:
    exact = run(Redrawer(pictures), pictures, tmp_path / "exact", data_root)
    scores = scores_of(exact)
    assert scores["overall"] == pytest.approx(100, abs=1e-3)
    assert list(scores["similarity"]) == list(scores["encoders"]) == list(UNIFIED_BENCH_METRICS)
    assert all(len(one["weights"]) == 64 and one["preprocessing"] for one in scores["encoders"].values())
    assert (scores["num_images"], scores["captions"]["mean_words"], scores["captions"]["num_empty"]) == (5, 2, 0)
    forgetful = scores_of(run(Redrawer(pictures, forgets=True), pictures, tmp_path / "less", data_root))
    assert forgetful["interval"][1] < scores["interval"][0]
    lines = [json.loads(line) for line in (tmp_path / "less" / "unified_bench" / "images.jsonl").open()]
    assert [(line["name"], line["caption"]) for line in lines] == [(f"{n}.png", f"picture {n}") for n in range(5)]
    for name in UNIFIED_BENCH_METRICS:
        mean = sum(line["similarity"][name] for line in lines) / 5
        assert forgetful["similarity"][name]["mean"] == pytest.approx(mean)
    assert exact.results is not None
    assert "Redrawing (unified_bench), overall | 100.00 / 100" in markdown_table({"exact": exact.results})


def test_fewer_encoders_give_no_overall_and_more_later_ask_and_draw_nothing_again(
    pictures: Path, data_root: Path, tmp_path: Path
) -> None:
    few = scores_of(run(Redrawer(pictures), pictures, tmp_path, data_root, models=ONE))
    assert set(few["similarity"]) == {"dinov2"}
    assert "overall" not in few
    again = Redrawer(pictures)
    assert "overall" in scores_of(run(again, pictures, tmp_path, data_root))
    assert (again.asked, again.drawn) == ([], [])


def test_a_run_that_was_stopped_goes_on_and_what_was_drawn_otherwise_is_compared_again(
    pictures: Path, data_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Redrawer(pictures, stop_after=2), pictures, tmp_path / "a", data_root, models=ONE)
    second = Redrawer(pictures)
    resumed = scores_of(run(second, pictures, tmp_path / "a", data_root, models=ONE))
    assert (len(second.asked), len(second.drawn)) == (0, 3)
    whole = scores_of(run(Redrawer(pictures), pictures, tmp_path / "b", data_root, models=ONE))
    assert resumed["similarity"] == whole["similarity"]
    (tmp_path / "a" / "unified_bench" / "images" / "3.png").unlink()
    changed = run(Redrawer(pictures, forgets=True), pictures, tmp_path / "a", data_root, models=ONE)
    assert scores_of(changed)["similarity"]["dinov2"]["mean"] < whole["similarity"]["dinov2"]["mean"]


def test_two_ranks_share_the_images_and_give_the_scores_of_one(pictures: Path, data_root: Path, tmp_path: Path) -> None:
    settings = options(pictures, tmp_path, data_root, models=ONE)
    model = Redrawer(pictures)
    (benchmark,) = BENCHMARK
    jobs = [
        Job(model, settings, tmp_path / "two", model.describe(), Ranks(rank=rank, world_size=2)) for rank in range(2)
    ]
    assert [benchmark.run(job) for job in jobs] == [[], []]
    found = benchmark.score(jobs[0])["unified_bench"]
    whole = scores_of(run(Redrawer(pictures), pictures, tmp_path / "one", data_root, models=ONE))
    assert found["similarity"] == whole["similarity"]
    assert {len(path.read_text().splitlines()) for path in (tmp_path / "two").glob("records-*.jsonl")} == {2, 3}


def test_captions_are_asked_for_and_drawn_with_the_settings(pictures: Path, data_root: Path, tmp_path: Path) -> None:
    model = Redrawer(pictures)
    written = {"question": "What is it?", "max_new_tokens": 7, "caption_temperature": 0.5}
    scores = scores_of(run(model, pictures, tmp_path, data_root, models=ONE, **written))
    assert {request.question for request in model.asked} == {"What is it?"}
    assert model.settings == {"max_new_tokens": 7, "temperature": 0.5}
    assert scores["captions"]["question"] == "What is it?"
    assert len({request.seed for request in model.drawn}) == 5
    with pytest.raises(EvaluationError, match=r"captioning.max_new_tokens was 7 and is now 8"):
        run(Redrawer(pictures), pictures, tmp_path, data_root, models=ONE, **{**written, "max_new_tokens": 8})


def test_a_missing_encoder_is_an_error_before_anything_is_done(pictures: Path, data_root: Path, tmp_path: Path) -> None:
    absent = {**tiny_choices(), "dinov3": replace(tiny_choices()["dinov3"], model="not-there")}
    model = Redrawer(pictures)
    with pytest.raises(EvaluationError, match=r"the encoder dinov3 cannot be used: .*not-there"):
        run(model, pictures, tmp_path, data_root, encoders=absent)
    assert model.asked == []


def test_other_weights_of_an_encoder_are_not_mixed_with_its_earlier_ones(
    pictures: Path, data_root: Path, tmp_path: Path
) -> None:
    run(Redrawer(pictures), pictures, tmp_path, data_root, models=ONE)
    other = {**tiny_choices(), "dinov2": replace(tiny_choices()["dinov2"], kind="dinov3", model="tiny-dinov3")}
    with pytest.raises(EvaluationError, match="scores/dinov2 holds results of another run"):
        run(Redrawer(pictures), pictures, tmp_path, data_root, models=ONE, encoders=other)


def test_an_unreadable_image_fails_by_name_and_the_others_can_be_scored(
    pictures: Path, data_root: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(pictures, damaged)
    (damaged / "2.png").write_bytes(b"no image")
    outcome = run(Redrawer(pictures), damaged, tmp_path / "out", data_root, models=ONE)
    assert len(outcome.failures) == 1
    assert "unified_bench, image 2.png" in outcome.failures[0]
    assert outcome.results is not None
    assert "unified_bench" not in outcome.results
    allowed = replace(options(damaged, tmp_path / "out", data_root, models=ONE), is_partial_allowed=True)
    partial = evaluate(Redrawer(pictures), BENCHMARK, allowed, Ranks()).results
    assert partial is not None
    assert (partial["unified_bench"]["num_images"], partial["unified_bench"]["partial"]) == (4, True)


def test_images_that_are_too_few_absent_or_of_one_name_are_refused(
    pictures: Path, data_root: Path, tmp_path: Path
) -> None:
    def refused(images: Path | None, complaint: str, **settings: Any) -> None:
        given = {} if images is not None else {"images": None}
        with pytest.raises(EvaluationError, match=complaint):
            run(Redrawer(pictures), images or pictures, tmp_path / "out", data_root, **{**settings, **given})

    refused(pictures, "takes 100 images, but .* has 5; .*unified_bench.num_images=5", num_images=100)
    refused(None, "datasets/unified_bench; unpack https://.*Image.zip there, or name a folder")
    refused(pictures, "num_images is 0", num_images=0)
    twice = write_pictures(tmp_path / "twice", 1)
    Image.new("RGB", (4, 4)).save(twice / "0.jpg")
    refused(twice, "2 images of .* are called 0", num_images=2)
