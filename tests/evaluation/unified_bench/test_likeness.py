# SPDX-License-Identifier: Apache-2.0
"""Scores of pairs of files: as slowly computed ones, 100 for identical images, lower for others, whole or without an overall."""

import shutil
from pathlib import Path

import pytest

from tests.evaluation.unified_bench.folders import tiny_choices, write_pictures
from unigen.config.evaluation import UNIFIED_BENCH_METRICS
from unigen.errors import EvaluationError
from unigen.evaluation.unified_bench.folders import FolderComparison, compare_folders
from unigen.evaluation.unified_bench.likeness import summarise
from unigen.reference.unified_bench import unified_bench_slowly

EACH = {f"{number}.png": 0.1 * number for number in range(5)}


def compare(originals: Path, generated: Path, data_root: Path, *names: str) -> FolderComparison:
    chosen = {name: choice for name, choice in tiny_choices().items() if not names or name in names}
    return compare_folders(originals, generated, chosen, data_root=data_root, device="cpu", batch_size=2)


def test_batches_of_files_score_as_pairs_one_by_one(data_root: Path, pictures: Path, tmp_path: Path) -> None:
    generated = write_pictures(tmp_path / "generated", 5, seed=1)
    found = compare(pictures, generated, data_root)
    pairs = [(pictures / f"{number}.png", generated / f"{number}.png") for number in range(5)]
    folders = {name: data_root / "checkpoints" / f"tiny-{name}" for name in UNIFIED_BENCH_METRICS}
    cosines, overall = unified_bench_slowly(pairs, folders)
    for name, values in cosines.items():
        assert list(found.values[name].values()) == pytest.approx(values, rel=1e-5, abs=1e-6)
        assert found.summary["similarity"][name]["mean"] == pytest.approx(sum(values) / 5, rel=1e-5)
    assert found.summary["overall"] == pytest.approx(overall, rel=1e-5)
    low, high = found.summary["interval"]
    assert low < found.summary["overall"] < high


def test_identical_images_score_100_and_exchanged_ones_less(data_root: Path, pictures: Path, tmp_path: Path) -> None:
    copies, exchanged = tmp_path / "copies", tmp_path / "exchanged"
    shutil.copytree(pictures, copies)
    exchanged.mkdir()
    for number in range(5):
        shutil.copy(pictures / f"{(number + 1) % 5}.png", exchanged / f"{number}.png")
    same, other = compare(pictures, copies, data_root), compare(pictures, exchanged, data_root)
    assert same.summary["overall"] == pytest.approx(100, abs=1e-3)
    assert same.summary["interval"] == pytest.approx([100, 100], abs=1e-3)
    for name in UNIFIED_BENCH_METRICS:
        assert other.summary["similarity"][name]["high"] < same.summary["similarity"][name]["low"]
    assert other.summary["interval"][1] < 100


def test_fewer_than_the_four_encoders_give_no_overall(data_root: Path, pictures: Path) -> None:
    found = compare(pictures, pictures, data_root, "clip", "dinov2", "dinov3")
    assert set(found.summary["similarity"]) == {"clip", "dinov2", "dinov3"}
    assert not {"overall", "interval"} & set(found.summary)


def test_a_fifth_encoder_beside_the_four_gives_no_overall_either() -> None:
    four = dict.fromkeys(UNIFIED_BENCH_METRICS, EACH)
    assert summarise(four)["overall"] == pytest.approx(20)
    assert "overall" not in summarise({**four, "own": EACH})


def test_means_are_plain_and_an_encoder_that_compared_nothing_is_an_error() -> None:
    found = summarise({"clip": EACH})["similarity"]["clip"]
    assert found["mean"] == pytest.approx(0.2)
    assert 0 <= found["low"] < 0.2 < found["high"] <= 0.4
    with pytest.raises(EvaluationError, match="compared by dinov2"):
        summarise({"clip": EACH, "dinov2": {}})
