# SPDX-License-Identifier: Apache-2.0
"""What holds for every benchmark: families, images drawn elsewhere, parts, failures beside scores, released folder names."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.oracle import Oracle
from unigen.cli.evaluate import CHOOSING, USED_BY
from unigen.cli.main import main
from unigen.config.evaluation import DpgConfig, DrawingConfig
from unigen.data.ranks import Ranks
from unigen.errors import EvaluationError
from unigen.evaluation.benchmarks import BENCHMARKS, find_benchmarks, require_support
from unigen.evaluation.elsewhere import ImageFolder
from unigen.evaluation.families import IMAGES, UAE, UNIFORK, UNIGEN, family_of
from unigen.evaluation.job import Job, Options
from unigen.evaluation.released_layout import link_released_names, settings_name
from unigen.evaluation.run import evaluate

SHAPES = find_benchmarks(["geneval_shapes"])


def test_every_benchmark_says_which_families_it_takes() -> None:
    for name in BENCHMARKS:
        (benchmark,) = find_benchmarks([name])
        assert benchmark.name == name
        assert benchmark.families <= {UNIGEN, IMAGES, "unifork", "uae"}
        assert benchmark.families


def test_the_table_of_support_is_what_the_benchmarks_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| benchmark | unigen | unifork | uae | images |"
    assert "| `dpg` | yes | yes | yes | yes |" in lines
    assert "| `unified_bench` | yes | yes | yes | – |" in lines
    assert "| `alignment` | yes | yes | – | – |" in lines
    assert "| `fid` | – | – | – | yes |" in lines
    assert len(lines) == 2 + len(BENCHMARKS)


def test_the_names_of_the_readmes_are_aliases() -> None:
    names = ["dpgbench", "dpg-bench", "mjhq", "mjhq30k", "mjhq-fid", "cot-gen", "cot-dpg", "geneval", "lmms", "seed"]
    found = ["dpg", "mjhq_fid", "geneval_cot", "dpg_cot", "geneval", "lmms", "seed_bench"]
    assert [benchmark.name for benchmark in find_benchmarks(names)] == found


@pytest.mark.parametrize(
    ("family", "benchmark", "complaint"),
    [
        ("uae", "alignment", "alignment cannot be run on models of the family 'uae'"),
        ("gpt2", "dpg", "dpg cannot be run on models of the family 'gpt2'"),
        (None, "vqa_shapes", "vqa_shapes cannot be run on images drawn elsewhere"),
        ("unigen", "fid", "fid cannot be run on models of the family 'unigen'"),
    ],
)
def test_an_unsupported_pair_is_one_line_and_exit_code_2(
    family: str | None, benchmark: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": family}))
    what = ["--images", str(tmp_path)] if family is None else ["--model", str(tmp_path / "model")]
    assert main(["evaluate", *what, "--benchmarks", benchmark, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_released_checkpoint_is_of_our_family(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "UniGen"}')
    assert family_of(tmp_path, tmp_path) == UNIGEN
    require_support(find_benchmarks(["geneval", "dpg", "lmms"]), UNIGEN)


@pytest.mark.parametrize(
    "flag",
    [
        ["--best-of", "5"],
        ["--keep", "1"],
        ["--verifier", "think"],
        ["--lmms-tasks", "gqa"],
        ["--prompts", "p"],
        ["--models", "clip"],
    ],
)
def test_a_flag_that_no_benchmark_would_look_at_is_refused(
    flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--model", "m", "--benchmarks", "geneval_shapes", "--output", str(tmp_path), *flag]
    assert main(words) == 2
    assert f"{flag[0]} is for " in capsys.readouterr().err


def test_the_flags_of_few_benchmarks_name_benchmarks() -> None:
    assert {name for users in USED_BY.values() for name in users} <= set(BENCHMARKS)
    assert set(CHOOSING) == {name for name in BENCHMARKS if name.endswith("_cot")}


@pytest.mark.parametrize("arguments", [[], ["--model", "m", "--images", "i"]])
def test_either_a_model_or_images_are_scored(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *arguments, "--benchmarks", "dpg", "--output", str(tmp_path)]) == 2
    assert "--model DIR, or --images DIR" in capsys.readouterr().err


def run(pipeline: Any, output: Path, world: Path, **options: Any) -> Any:
    return evaluate(pipeline, SHAPES, Options(output=output, world=world, **options), Ranks())


def test_images_drawn_elsewhere_score_as_where_they_were_drawn(world: Path, tmp_path: Path) -> None:
    own = run(Oracle(world, wrong_every=3), tmp_path / "own", world).results["geneval_shapes"]
    images = tmp_path / "own" / "geneval_shapes" / "images"
    scored = run(ImageFolder(images), tmp_path / "e", world, images=images).results["geneval_shapes"]
    assert scored["tags"] == own["tags"]
    assert scored["interval"] == own["interval"]
    (images / "00003" / "samples" / "00001.png").unlink()
    outcome = run(ImageFolder(images), tmp_path / "f", world, images=images)
    assert len(outcome.failures) == 1
    assert "00003/samples/00001.png" in outcome.failures[0]
    assert list(outcome.results["failed"]) == ["geneval_shapes"]
    assert "geneval_shapes" not in outcome.results


def test_an_image_that_was_exchanged_elsewhere_is_judged_again(world: Path, tmp_path: Path) -> None:
    own = run(Oracle(world), tmp_path / "own", world)
    images = tmp_path / "own" / "geneval_shapes" / "images"
    before = run(ImageFolder(images), tmp_path / "e", world, images=images).results["geneval_shapes"]
    assert before["overall"] == own.results["geneval_shapes"]["overall"] == 1.0
    Image.new("RGB", (32, 32)).save(images / "00003" / "samples" / "00001.png")
    after = run(ImageFolder(images), tmp_path / "e", world, images=images).results["geneval_shapes"]
    assert after["correct_images"] == 1 - 1 / after["num_images"]
    records = (tmp_path / "e" / "geneval_shapes" / "records-0.jsonl").read_text().splitlines()
    assert len(records) == before["num_images"] + 1, "the others are not judged again"


def test_a_part_is_scored_if_that_is_allowed_and_says_so(world: Path, tmp_path: Path) -> None:
    oracle = Oracle(world)
    options = Options(output=tmp_path, world=world)
    job = Job(oracle, options, tmp_path / "geneval_shapes", oracle.describe(), Ranks(rank=1, world_size=2))
    assert SHAPES[0].run(job) == []
    with pytest.raises(EvaluationError, match="24 of 48 items are not done"):
        SHAPES[0].score(job)
    allowed = Options(output=tmp_path, world=world, is_partial_allowed=True)
    scores = SHAPES[0].score(Job(oracle, allowed, job.folder, job.model))["geneval_shapes"]
    assert (scores["partial"], scores["num_images"], scores["overall"]) == (True, 24, 1.0)
    whole = run(Oracle(world), tmp_path, world, is_partial_allowed=True).results["geneval_shapes"]
    assert "partial" not in whole


def test_a_failed_benchmark_takes_no_score_from_the_others_and_loses_its_own(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = find_benchmarks(["geneval_shapes", "vqa_shapes"])
    options = Options(output=tmp_path, world=world, num_images=1)
    whole = evaluate(Oracle(world), both, options, Ranks()).results
    assert whole is not None
    assert {"geneval_shapes", "vqa_shapes"} <= set(whole)

    def refuse(job: Job) -> dict[str, Any]:
        raise EvaluationError("the judge cannot be trusted")

    monkeypatch.setattr(both[0], "score", refuse)
    outcome = evaluate(Oracle(world), both, options, Ranks())
    assert outcome.failures == ["the judge cannot be trusted"]
    assert outcome.results is not None
    assert outcome.results["failed"] == {"geneval_shapes": ["the judge cannot be trusted"]}
    assert "geneval_shapes" not in outcome.results
    assert "vqa_shapes" in outcome.results
    again = evaluate(Oracle(world), find_benchmarks(["geneval_shapes"]), options, Ranks()).results
    assert again is not None
    assert "failed" not in again
    manifest = again["manifest"]
    assert (manifest["world_size"], manifest["settings"]["num_images"]) == (1, 1)
    assert manifest["settings"]["geneval"]["counting_score"] == 0.9
    assert {"git_commit", "has_uncommitted_changes", "float32_matmul_precision", "is_deterministic"} <= set(manifest)


def test_folders_are_named_after_the_settings_that_a_family_has() -> None:
    assert settings_name(DrawingConfig(), UNIGEN) == "step50_scale6"
    assert settings_name(DrawingConfig(steps=16, guidance_scale=1.5), UNIGEN) == "step16_scale1.5"
    assert settings_name(DrawingConfig(), UNIFORK) == "scale4"
    assert settings_name(DrawingConfig(guidance_scale=0), UNIFORK) == "scale0"
    assert settings_name(DrawingConfig(steps=28), UAE) == "step28_scale5"


def test_released_folder_names_are_links_to_ours(tmp_path: Path) -> None:
    for folder in ("geneval/images/00000", "dpg/grids-released", "lmms"):
        (tmp_path / folder).mkdir(parents=True)
    options = Options(output=tmp_path, drawing=DrawingConfig(steps=16), dpg=DpgConfig(grid="released"))
    found = find_benchmarks(["geneval", "dpg", "lmms", "cot-dpg"])
    for _ in range(2):
        links = link_released_names(found, options, UNIGEN)
    assert [str(link.relative_to(tmp_path)) for link in links] == [
        "geneval/t2i_samples_step16_scale6",
        "dpg_bench/dpg_bench_step16_scale6",
        "lmms_eval",
    ]
    assert (links[0] / "00000").is_dir()
    assert links[1].resolve() == (tmp_path / "dpg" / "grids-released").resolve()
    links[2].unlink()
    links[2].mkdir()
    with pytest.raises(EvaluationError, match="is no link"):
        link_released_names(found, options, UNIGEN)
