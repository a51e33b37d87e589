# SPDX-License-Identifier: Apache-2.0
"""`unigen evaluate` over the three families: drawn, asked, and captioned and drawn again, by one command."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluation.unified_bench.folders import tiny_encoders, tiny_settings
from tests.tiny import tiny_unigen
from tests.tiny_uae import tiny_uae
from tests.tiny_unifork import released_unifork
from unigen.cli.main import main
from unigen.config.evaluation import UNIFIED_BENCH_METRICS

FAMILIES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "unigen": (tiny_unigen, ["--steps", "2"]),
    "unifork": (released_unifork, []),
    "uae": (tiny_uae, ["--steps", "2"]),
}
"""How a tiny model of each is made, and what makes it draw faster."""
NUM_IMAGES = 3


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoders(tmp_path_factory.mktemp("encoders"))


def redrawing(world: Path, *more: str) -> list[str]:
    captioned = f"unified_bench.images={world / 'evaluation' / 'captioned'}"
    few = ["unified_bench.max_new_tokens=6", f"unified_bench.num_images={NUM_IMAGES}"]
    return [captioned, *few, *tiny_settings(), *more]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_scored_by_drawing_reading_and_redrawing(
    family: str, world: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, faster = FAMILIES[family]
    model = make(tmp_path / "models" / family)
    where = [
        "--model",
        str(model),
        "--data",
        str(world),
        "--data-root",
        str(data_root),
        "--output",
        str(tmp_path / "out"),
    ]
    words = ["--benchmarks", "geneval_shapes,vqa_shapes,unified_bench", "--num-images", "1", "--device", "cpu", *faster]
    assert main(["evaluate", *where, *words, *redrawing(world)]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert 0 <= results["geneval_shapes"]["overall"] < results["geneval_shapes"]["detector"]
    assert 0 <= results["vqa_shapes"]["accuracy"] < 1
    found = results["unified_bench"]
    means = [found["similarity"][name]["mean"] for name in UNIFIED_BENCH_METRICS]
    assert found["overall"] == pytest.approx(100 * sum(means) / 4)
    assert found["interval"][0] <= found["overall"] <= found["interval"][1]
    lines = [json.loads(line) for line in (tmp_path / "out" / "unified_bench" / "images.jsonl").open()]
    assert len(lines) == found["num_images"] == NUM_IMAGES
    assert all(Path(line["reconstruction"]).is_file() for line in lines)
    assert "overall" in capsys.readouterr().out


def test_fewer_encoders_are_named_by_a_flag_and_a_missing_one_is_a_mistake(
    world: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_unigen(tmp_path / "model")
    where = ["--model", str(model), "--data-root", str(data_root), "--output", str(tmp_path / "out")]
    words = ["evaluate", *where, "--benchmarks", "unified_bench", "--device", "cpu", "--steps", "2"]
    absent = "unified_bench.encoders.dinov3.model=nowhere"
    assert main([*words, *redrawing(world, absent)]) == 2
    assert "the encoder dinov3 cannot be used" in capsys.readouterr().err
    assert main([*words, *redrawing(world, absent), "--models", "clip,dinov2"]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())["unified_bench"]
    assert list(found["similarity"]) == ["clip", "dinov2"]
    assert "overall" not in found
