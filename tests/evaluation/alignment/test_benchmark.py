# SPDX-License-Identifier: Apache-2.0
"""The benchmark `alignment`: by the command line for every family, resumed, shared among ranks, and what its numbers mean."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor

from tests.evaluation.oracle import Oracle
from tests.tiny import tiny_unigen
from tests.tiny_unifork import released_unifork
from unigen.cli.main import main
from unigen.config.evaluation import AlignmentConfig
from unigen.data.ranks import Ranks
from unigen.evaluation.alignment.benchmark import Alignment
from unigen.evaluation.benchmarks import find_benchmarks
from unigen.evaluation.job import Job, Options
from unigen.evaluation.run import evaluate

SETTINGS = ["alignment.num_neighbours=4", "alignment.num_pairs=20"]


class Seer(Oracle):
    """Sees an image as what its caption says: less so the higher the layer, and not at all in the last."""

    def __init__(self, world: Path) -> None:
        super().__init__(world)
        files = sorted((world / "evaluation" / "captioned").glob("*.txt"))
        self._captions = {Image.open(file.with_suffix(".png")).tobytes(): file.read_text() for file in files}
        self.num_seen = 0

    @property
    def layer_ways(self) -> tuple[str, ...]:
        return ("eyes",)

    def layer_states(self, inputs: Sequence[str] | Sequence[Image.Image], way: str, *, batch_size: int = 16) -> Tensor:
        self.num_seen += len(inputs)
        rows = []
        for one in inputs:
            caption = one if isinstance(one, str) else self._captions[one.tobytes()]
            meaning, noise = (
                np.random.default_rng([*f"{caption}{kind}".encode()]).standard_normal(12)
                for kind in ("", type(one).__name__)
            )
            rows.append(np.stack([share * noise + (1 - share) * meaning for share in (0.0, 0.4, 1.0)]))
        return torch.tensor(np.stack(rows), dtype=torch.float32)


def run(world: Path, output: Path, k: int = 5, **options: Any) -> tuple[Seer, dict[str, Any]]:
    seer, settings = Seer(world), AlignmentConfig(num_neighbours=k)
    options = {"output": output, "world": world, "alignment": settings, **options}
    outcome = evaluate(seer, find_benchmarks(["alignment"]), Options(**options), Ranks())
    assert outcome.failures == []
    assert outcome.results is not None
    return seer, outcome.results["alignment"]


def test_layers_that_see_images_as_captions_are_aligned_and_others_by_chance(world: Path, tmp_path: Path) -> None:
    _, found = run(world, tmp_path)
    curve = found["ways"]["eyes"]
    first, second, last = curve["alignment"]
    assert first == pytest.approx(1.0)
    assert first > second > last
    assert found["num_pairs"] == found["num_captions"] == 24
    assert found["chance"] == pytest.approx(5 / 23)
    assert curve["most_permuted"][1] < second
    for (low, high), value in zip(curve["intervals"], curve["alignment"], strict=True):
        assert low <= value <= high
    assert curve["permuted"] == pytest.approx([5 / 23] * 3, abs=0.05)
    assert curve["intervals"][2][0] < 5 / 23 + 0.1


def test_what_is_done_is_kept_and_other_neighbours_need_no_reading(world: Path, tmp_path: Path) -> None:
    first, found = run(world, tmp_path)
    assert first.num_seen == 48
    (tmp_path / "alignment" / "states" / "00003.safetensors").unlink()
    second, again = run(world, tmp_path, batch_size=3)
    assert second.num_seen == 2
    assert {**again, "seconds": 0} == {**found, "seconds": 0}
    third, other = run(world, tmp_path, k=2)
    assert third.num_seen == 0
    assert other["chance"] == pytest.approx(2 / 23)


def test_ranks_share_the_pairs(world: Path, tmp_path: Path) -> None:
    _, alone = run(world, tmp_path / "alone")
    seer, options = Seer(world), Options(output=tmp_path, world=world, alignment=AlignmentConfig(num_neighbours=5))
    jobs = [
        Job(seer, options, tmp_path / "alignment", seer.describe(), Ranks(rank=rank, world_size=2)) for rank in range(2)
    ]
    for job in jobs:
        before = seer.num_seen
        assert Alignment().run(job) == []
        assert seer.num_seen - before == 24
    assert Alignment().score(jobs[0])["alignment"] == {name: one for name, one in alone.items() if name != "seconds"}


def test_a_damaged_image_fails_alone_and_a_part_says_so(world: Path, tmp_path: Path) -> None:
    place = tmp_path / "pairs"
    place.mkdir()
    for file in (world / "evaluation" / "captioned").iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    (place / "00005.png").write_bytes(b"no image")
    settings = AlignmentConfig(pairs=str(place), num_neighbours=5)
    options = Options(output=tmp_path / "out", world=world, alignment=settings, is_partial_allowed=True)
    outcome = evaluate(Seer(world), find_benchmarks(["alignment"]), options, Ranks())
    assert len(outcome.failures) == 1
    assert "00005.png" in outcome.failures[0]
    assert outcome.results is not None
    found = outcome.results["alignment"]
    assert (found["partial"], found["num_pairs"]) == (True, 23)


@pytest.fixture(scope="module")
def unifork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_unifork(tmp_path_factory.mktemp("unifork") / "released")


@pytest.fixture(scope="module")
def unigen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_unigen(tmp_path_factory.mktemp("unigen"), reads_features=True)


@pytest.mark.parametrize(
    ("family", "ways", "layers"),
    [("unifork", ["understanding", "generation"], 4), ("unigen", ["codes", "features"], 2)],
)
def test_the_command_measures_a_model_of_every_family_layer_by_layer(
    family: str,
    ways: list[str],
    layers: int,
    world: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = request.getfixturevalue(family)
    words = ["evaluate", "--model", str(model), "--data", str(world), "--benchmarks", "alignment", "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path), *SETTINGS]) == 0
    assert f"{ways[0]}, last layer" in capsys.readouterr().out
    found = json.loads((tmp_path / "results.json").read_text())["alignment"]
    assert (found["k"], found["num_pairs"], list(found["ways"])) == (4, 20, ways)
    for curve in found["ways"].values():
        assert all(len(values) == layers + 1 for values in curve.values())
        assert all(0 <= value <= 1 for value in curve["alignment"])
    states = load_file(tmp_path / "alignment" / "states" / "00007.safetensors")
    assert set(states) == {f"{way}/{kind}" for way in ways for kind in ("text", "image")}
    assert {array.dtype for array in states.values()} == {np.dtype(np.float32)}
    page = (tmp_path / "report.html").read_text()
    assert "Alignment of images and texts" in page
    assert "data:image/svg+xml" in page
    assert f"| Alignment (mutual 4-NN), {ways[1]}, highest |" in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["alignment.num_neighbours=20", "alignment.num_pairs=20"], "has 20 pairs; give more, or lower it"),
        (["alignment.pairs=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    settings: list[str],
    complaint: str,
    unigen: Path,
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["evaluate", "--model", str(unigen), "--data", str(world), "--benchmarks", "alignment", "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path), *settings]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_a_world_without_pairs_says_how_to_get_them(
    unigen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--model", str(unigen), "--data", str(tmp_path), "--benchmarks", "alignment"]
    assert main([*words, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "is written again by `unigen data shapes`" in capsys.readouterr().err
