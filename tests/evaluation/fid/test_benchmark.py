# SPDX-License-Identifier: Apache-2.0
"""FID of folders and of MJHQ-30K with a tiny extractor: the direct computation, categories, shares, kills, bad images."""

import json
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.evaluation.fid.test_statistics import plain_distance
from tests.evaluation.painter import Painter, painted
from unigen.config.evaluation import FidConfig, MjhqFidConfig
from unigen.data.ranks import Ranks
from unigen.errors import EvaluationError
from unigen.evaluation.benchmarks import find_benchmarks
from unigen.evaluation.elsewhere import ImageFolder
from unigen.evaluation.fid import benchmark, features, mjhq
from unigen.evaluation.fid.self_test import SIDES
from unigen.evaluation.job import Job, Options
from unigen.evaluation.run import Outcome, evaluate

pytest.importorskip("torch_fidelity", reason="FID needs the extra eval")
CATEGORIES = ("art", "food")
EACH = 9


class Tiny:
    """Means of the four quarters of an image; `dies_after` kills its own process after so many images."""

    identity: dict[str, Any] = {"extractor": "quarters"}  # noqa: RUF012

    def __init__(self, dies_after: int | None = None) -> None:
        self.num_seen, self._dies_after = 0, dies_after

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        if images[0].width in SIDES:  # the pictures of the self-test
            return np.stack([quarters(image) for image in images])
        if self._dies_after is not None and self.num_seen + len(images) > self._dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.num_seen += len(images)
        return np.stack([quarters(image) for image in images])


def quarters(image: Image.Image) -> NDArray[np.float32]:
    gray_HW = np.asarray(image.convert("L"), dtype=np.float32)
    middle = gray_HW.shape[0] // 2
    return np.array([part.mean() for part in (gray_HW[:middle, :middle], gray_HW[middle:], gray_HW[:, middle:])])


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    extractor = Tiny()
    for module in (benchmark, mjhq):
        monkeypatch.setattr(module, "load_extractor", lambda job: extractor)
    monkeypatch.setattr(features, "CHUNK", 4)
    return extractor


def write_images(folder: Path, seed: int, suffix: str = ".png") -> Path:
    for number in range(EACH * len(CATEGORIES)):
        category = CATEGORIES[number // EACH]
        (folder / category).mkdir(parents=True, exist_ok=True)
        side = 8 if number % 2 else 12
        painted(seed + number).resize((side, side)).save(folder / category / f"{number:03d}{suffix}")
    return folder


def features_of(folder: Path, pattern: str = "*/*.png") -> NDArray[np.float32]:
    return np.stack([quarters(Image.open(path)) for path in sorted(folder.glob(pattern))])


def run_folders(images: Path, reference: Path, output: Path, **options: Any) -> Outcome:
    config = FidConfig(reference=str(reference))
    options = {"output": output, "images": images, "fid": config, **options}
    return evaluate(ImageFolder(images), find_benchmarks(["fid"]), Options(**options), Ranks())


def scores_of(outcome: Outcome, name: str = "fid") -> dict[str, Any]:
    assert outcome.failures == []
    assert outcome.results is not None
    found = {**outcome.results[name], "seconds": 0}
    assert isinstance(found, dict)
    return found


def test_two_folders_have_the_distance_of_a_direct_computation(tmp_path: Path) -> None:
    one, other = write_images(tmp_path / "one", 0), write_images(tmp_path / "other", 100)
    scores = scores_of(run_folders(one, other, tmp_path / "out"))
    assert scores["overall"] == pytest.approx(plain_distance(features_of(one), features_of(other)), rel=1e-5)
    for category in CATEGORIES:
        expected = plain_distance(*(features_of(side, f"{category}/*.png") for side in (one, other)))
        assert scores["categories"][category] == pytest.approx(expected, rel=1e-5)
    assert (scores["num_images"], scores["num_reference"], scores["is_rank_deficient"]) == (18, 18, True)
    assert scores["extractor"] == Tiny.identity


def test_stored_statistics_stand_for_their_images(tmp_path: Path, tiny: Tiny) -> None:
    one, other = write_images(tmp_path / "one", 0), write_images(tmp_path / "other", 100)
    first = scores_of(run_folders(one, other, tmp_path / "out"))
    seen = tiny.num_seen
    second = scores_of(run_folders(one, tmp_path / "out" / "fid" / "reference.safetensors", tmp_path / "again"))
    assert tiny.num_seen == seen + 18  # the reference's images are not read again
    assert second["overall"] == pytest.approx(first["overall"])
    assert second["categories"] == pytest.approx(first["categories"])


def test_a_finished_folder_is_scored_again_without_its_features(tmp_path: Path, tiny: Tiny) -> None:
    one, other = write_images(tmp_path / "one", 0), write_images(tmp_path / "other", 100)
    first = scores_of(run_folders(one, other, tmp_path / "out"))
    seen = tiny.num_seen
    assert scores_of(run_folders(one, other, tmp_path / "out")) == first
    assert tiny.num_seen == seen
    write_images(tmp_path / "one", 7)
    (tmp_path / "one" / "art" / "new.png").write_bytes((one / "art" / "000.png").read_bytes())
    with pytest.raises(EvaluationError, match=r"results of another run: files was"):
        run_folders(one, other, tmp_path / "out")


def test_a_damaged_image_fails_and_is_left_out_only_if_that_is_allowed(tmp_path: Path) -> None:
    one, other = write_images(tmp_path / "one", 0), write_images(tmp_path / "other", 100)
    damaged = one / "art" / "003.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(bytes(len(whole)))
    outcome = run_folders(one, other, tmp_path / "out")
    assert len(outcome.failures) == 1
    assert "art/003.png" in outcome.failures[0]
    assert outcome.results is not None
    assert "fid" not in outcome.results
    outcome = run_folders(one, other, tmp_path / "out", is_partial_allowed=True)
    assert outcome.failures
    assert outcome.results is not None
    assert outcome.results["fid"]["partial"] is True
    assert outcome.results["fid"]["num_images"] == 17
    damaged.write_bytes(whole)  # of the same size, so of the same set
    scores = scores_of(run_folders(one, other, tmp_path / "out"))
    assert scores["num_images"] == 18
    assert "partial" not in scores


def test_a_reference_that_is_not_there_is_named(tmp_path: Path) -> None:
    one = write_images(tmp_path / "one", 0)
    with pytest.raises(EvaluationError, match=r"nothing at .*nowhere"):
        run_folders(one, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(EvaluationError, match=r"fid.reference=PATH"):
        run_folders(one, one, tmp_path / "out", fid=FidConfig())
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match="no images"):
        run_folders(tmp_path / "empty", one, tmp_path / "out")


@pytest.fixture
def mjhq_set(tmp_path: Path) -> Path:
    """A set of the published layout, with the ids out of order."""
    folder = tmp_path / "MJHQ-30K"
    write_images(folder / "mjhq30k_imgs", 50, ".jpg")
    names = [(path.parent.name, path.stem) for path in sorted((folder / "mjhq30k_imgs").rglob("*.jpg"))][::-1]
    content = {name: {"category": category, "prompt": f"{category} number {name}"} for category, name in names}
    (folder / "meta_data.json").write_text(json.dumps(content))
    return folder


def mjhq_options(output: Path, folder: Path, **options: Any) -> Options:
    settings = {"metadata": str(folder / "meta_data.json"), "num_prompts": 18, **options.pop("mjhq_fid", {})}
    return Options(output=output, mjhq_fid=MjhqFidConfig(**settings), **options)


def run_mjhq(painter: Painter, output: Path, folder: Path, **options: Any) -> Outcome:
    return evaluate(painter, find_benchmarks(["mjhq"]), mjhq_options(output, folder, **options), Ranks())


def test_mjhq_draws_one_image_a_prompt_and_compares_by_category(mjhq_set: Path, tmp_path: Path) -> None:
    painter = Painter()
    scores = scores_of(run_mjhq(painter, tmp_path / "out", mjhq_set), "mjhq_fid")
    assert sorted(painter.prompts) == sorted(
        f"{CATEGORIES[number // EACH]} number {number:03d}" for number in range(18)
    )
    drawn, reference = tmp_path / "out" / "mjhq_fid" / "images", mjhq_set / "mjhq30k_imgs"
    expected = plain_distance(features_of(drawn), features_of(reference, "*/*.jpg"))
    assert scores["overall"] == pytest.approx(expected, rel=1e-5)
    assert set(scores["categories"]) == set(CATEGORIES)
    assert (scores["formats"], scores["reference_formats"]) == ([".png"], [".jpg"])
    for name, images, distance in (("png", drawn, scores["overall"]), ("jpg", reference, 0)):
        elsewhere = mjhq_options(tmp_path / name, mjhq_set, images=images)
        again = scores_of(evaluate(ImageFolder(images), find_benchmarks(["mjhq"]), elsewhere, Ranks()), "mjhq_fid")
        assert again["overall"] == pytest.approx(distance, abs=1e-6)
        assert again["formats"] == [f".{name}"]


def die(drawings: int | None, images: int | None, output: Path, folder: Path) -> None:
    for module in (benchmark, mjhq):
        module.load_extractor = lambda job: Tiny(images)  # type: ignore[attr-defined]
    run_mjhq(Painter(dies_after=drawings), output, folder)


@pytest.mark.parametrize(("drawings", "images"), [(7, None), (None, 9), (None, 18 + 8)])
def test_a_killed_run_goes_on_with_nothing_lost_or_done_twice(
    drawings: int | None, images: int | None, mjhq_set: Path, tmp_path: Path, tiny: Tiny
) -> None:
    arguments = (drawings, images, tmp_path / "a", mjhq_set)
    process = multiprocessing.get_context("fork").Process(target=die, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    painter = Painter()
    resumed = scores_of(run_mjhq(painter, tmp_path / "a", mjhq_set), "mjhq_fid")
    assert len(painter.prompts) == (18 - drawings if drawings else 0)
    assert tiny.num_seen <= 36 - (images // 8 * 8 if images else 0) + 4
    whole = scores_of(run_mjhq(Painter(), tmp_path / "b", mjhq_set), "mjhq_fid")
    assert resumed == whole
    lines = [json.loads(line) for line in (tmp_path / "a" / "mjhq_fid" / "records-0.jsonl").read_text().splitlines()]
    assert len(lines) == len({line["item_id"] for line in lines}) == 18


def test_two_ranks_do_the_work_of_one(mjhq_set: Path, tmp_path: Path) -> None:
    painters = [Painter(), Painter()]
    options = mjhq_options(tmp_path / "two", mjhq_set)
    (found,) = find_benchmarks(["mjhq_fid"])
    for rank, painter in enumerate(painters):
        job = Job(painter, options, tmp_path / "two" / "mjhq_fid", painter.describe(), Ranks(rank, 2))
        assert found.run(job) == []
    assert [len(painter.prompts) for painter in painters] == [4 + 1 + 4, 4 + 4 + 1]
    idle = Painter()
    two = scores_of(run_mjhq(idle, tmp_path / "two", mjhq_set), "mjhq_fid")
    assert idle.prompts == []
    assert two == scores_of(run_mjhq(Painter(), tmp_path / "one", mjhq_set), "mjhq_fid")


def test_another_number_of_prompts_or_images_is_refused_or_partial(mjhq_set: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="MJHQ-30K has 30000 prompts, but"):
        run_mjhq(Painter(), tmp_path / "out", mjhq_set, mjhq_fid={"num_prompts": 30000})
    (mjhq_set / "mjhq30k_imgs" / "art" / "002.jpg").unlink()
    with pytest.raises(EvaluationError, match=r"lacks 1 of 18 images \(first art/002\)"):
        run_mjhq(Painter(), tmp_path / "out", mjhq_set)
    outcome = run_mjhq(Painter(), tmp_path / "out", mjhq_set, mjhq_fid={"num_prompts": 30000}, is_partial_allowed=True)
    scores = scores_of(outcome, "mjhq_fid")
    assert (scores["partial"], scores["num_images"], scores["num_reference"]) == (True, 18, 17)


def test_metadata_of_another_schema_is_named(mjhq_set: Path, tmp_path: Path) -> None:
    (mjhq_set / "meta_data.json").write_text('[{"prompt": "x"}]')
    with pytest.raises(EvaluationError, match="no metadata of MJHQ-30K"):
        run_mjhq(Painter(), tmp_path / "out", mjhq_set)
    (mjhq_set / "meta_data.json").write_text('{"../x": {"category": "art", "prompt": "x"}}')
    with pytest.raises(EvaluationError, match="cannot name a file"):
        run_mjhq(Painter(), tmp_path / "out", mjhq_set)
