# SPDX-License-Identifier: Apache-2.0
"""The benchmark geneval over a painter's images: layout, results, variants, resuming, and what is refused."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.geneval.judges import ToldColors, ToldDetector, instance, write_clip
from tests.evaluation.painter import Painter
from unigen.config.evaluation import GenevalConfig
from unigen.data.ranks import Ranks
from unigen.errors import EvaluationError
from unigen.evaluation.elsewhere import ImageFolder
from unigen.evaluation.geneval import benchmark as module
from unigen.evaluation.geneval.benchmark import Geneval
from unigen.evaluation.geneval.judge import ImageJudge, JudgeFiles, thresholds_of
from unigen.evaluation.job import Job, Options
from unigen.evaluation.records import read_records
from unigen.evaluation.run import evaluate

OFFICIAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "geneval_evaluation_metadata.jsonl"
ENTRIES = [
    {"tag": "single_object", "include": [{"class": "cup", "count": 1}], "prompt": "a photo of a cup"},
    {"tag": "single_object", "include": [{"class": "car", "count": 1}], "prompt": "a photo of a car"},
    {"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}], "prompt": "a photo of a red cup"},
]


class OftenCup(ToldDetector):
    """Finds a cup in the images whose first value is even, and dies by its own hand after so many."""

    def __init__(self, dies_after: int | None) -> None:
        super().__init__(instance("cup", (1, 1, 6, 6), 0.8, side=8))
        self.left = dies_after

    def find(self, image: Image.Image, min_score: float = 0.0) -> Any:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGKILL)
        return super().find(image, min_score) if is_cup(image) else []


def is_cup(image: Image.Image) -> bool:
    first = image.getpixel((0, 0))
    assert isinstance(first, tuple)
    return first[0] % 2 == 0


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Judges say what they are told; counts how often they were loaded."""
    state: dict[str, Any] = {"loaded": 0, "dies_after": None}

    def load(files: JudgeFiles, device: Any) -> Any:
        state["loaded"] += 1
        judges: Any = (OftenCup(state["dies_after"]), ToldColors(*["red"] * 100))
        return ImageJudge(*judges, thresholds_of(files.settings))

    monkeypatch.setattr(JudgeFiles, "load", load)
    monkeypatch.setattr(module, "self_test", lambda judge, golden: {"golden_images": golden})
    return state


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in the READMEs' places, which only have to be there."""
    root = tmp_path_factory.mktemp("data")
    (root / "checkpoints").mkdir()
    (root / "checkpoints" / "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.pth").write_bytes(b"weights")
    write_clip(root / "checkpoints" / "clip-vit-large-patch14")
    return root


@pytest.fixture
def options(data_root: Path, tmp_path: Path) -> Options:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    return Options(output=tmp_path / "out", data_root=data_root, num_images=4, geneval=GenevalConfig(prompts=str(file)))


def run(painter: Any, options: Options) -> dict[str, Any]:
    outcome = evaluate(painter, [Geneval()], options, Ranks())
    assert outcome.failures == []
    assert outcome.results is not None
    return outcome.results["geneval"]


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_images_lie_in_the_official_layout_and_results_have_the_official_columns(
    told: dict[str, Any], options: Options
) -> None:
    scores = run(Painter(), options)
    folder = options.output / "geneval"
    for index, entry in enumerate(ENTRIES):
        prompt = folder / "images" / f"{index:05d}"
        assert json.loads((prompt / "metadata.jsonl").read_text()) == entry
        assert sorted(path.name for path in (prompt / "samples").iterdir()) == [f"{n:05d}.png" for n in range(4)]
    rows = [json.loads(line) for line in only(folder, "*/results.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert list(rows[0]) == ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"]
    for row in rows:
        found = is_cup(Image.open(row["filename"]))
        assert row["correct"] is (found and "car" not in row["prompt"])
        assert json.loads(row["metadata"])["prompt"] == row["prompt"]
        assert json.loads(row["details"]) == ({"cup": [[1, 1, 6, 6, 0.8]]} if found else {})
        assert bool(row["reason"]) is not row["correct"]
    shares = {tag: [row["correct"] for row in rows if row["tag"] == tag] for tag in ("single_object", "colors")}
    assert scores["tags"] == {tag: sum(values) / len(values) for tag, values in shares.items()}
    assert scores["overall"] == pytest.approx(sum(scores["tags"].values()) / 2)
    assert scores["variant"].startswith("geneval/mask2former-openmmlab-")
    assert "+prompts-" in scores["variant"]
    assert scores["self_test"] == {"golden_images": None}
    assert "not the checkpoint" in scores["warnings"][0]
    assert scores["judge"]["settings"]["counting_score"] == 0.9


def test_a_finished_run_is_scored_again_without_drawing_or_loading(told: dict[str, Any], options: Options) -> None:
    first = run(Painter(), options)
    idle = Painter()
    again = run(idle, options)
    assert (idle.prompts, told["loaded"]) == ([], 1)
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


def test_other_thresholds_judge_the_same_images_anew_under_another_name(told: dict[str, Any], options: Options) -> None:
    first = run(Painter(), options)
    idle = Painter()
    stricter = replace(options, geneval=replace(options.geneval, score=0.85))
    second = run(idle, stricter)
    assert idle.prompts == []
    assert second["variant"] == first["variant"] + "+score=0.85"
    assert (second["overall"], first["overall"] > 0) == (0.0, True)
    assert "no object was found in any of 12 images" in second["warnings"][1]
    assert len(list((options.output / "geneval").glob("*/results.jsonl"))) == 2


def die(options: Options, painter_dies: int | None) -> None:
    evaluate(Painter(dies_after=painter_dies), [Geneval()], options, Ranks())


@pytest.mark.parametrize(("painter_dies", "judge_dies"), [(7, None), (None, 5)])
def test_after_kill_9_the_same_command_goes_on_with_nothing_lost_or_doubled(
    painter_dies: int | None, judge_dies: int | None, told: dict[str, Any], options: Options
) -> None:
    told["dies_after"] = judge_dies
    process = multiprocessing.get_context("fork").Process(target=die, args=(options, painter_dies))
    process.start()
    process.join(60)
    assert process.exitcode == -9
    told["dies_after"] = None
    rest = Painter()
    resumed = run(rest, options)
    assert len(rest.prompts) == (12 - 7 if painter_dies else 0)
    whole = run(Painter(), replace(options, output=options.output.parent / "whole"))
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    for pattern in ("records-*.jsonl", "*/records-*.jsonl"):
        lines = only(options.output / "geneval", pattern).read_text().splitlines()
        assert sorted(json.loads(line)["item_id"] for line in lines) == [
            f"{index:05d}/{sample:05d}" for index in range(3) for sample in range(4)
        ]


def test_an_image_that_changed_is_judged_again(told: dict[str, Any], options: Options) -> None:
    run(Painter(), options)
    broken = options.output / "geneval" / "images" / "00001" / "samples" / "00002.png"
    broken.write_bytes(b"")
    again = Painter()
    run(again, options)
    assert again.prompts == ["a photo of a car"]
    assert told["loaded"] == 1  # the same pixels have their verdict


def test_an_incomplete_folder_has_no_score(told: dict[str, Any], options: Options) -> None:
    painter = Painter()
    job = Job(painter, options, options.output / "geneval", painter.describe(), Ranks(rank=1, world_size=2))
    assert Geneval().run(job) == []
    with pytest.raises(EvaluationError, match="6 of 12 items are not done"):
        Geneval().score(job)
    run(painter, options)  # another number of ranks finishes it
    assert len(painter.prompts) == 12


def test_images_drawn_elsewhere_are_scored_without_a_model(told: dict[str, Any], options: Options) -> None:
    scores = run(Painter(), options)
    images = options.output / "geneval" / "images"
    elsewhere = replace(options, output=options.output.parent / "elsewhere", images=images)
    found = run(ImageFolder(images), elsewhere)
    for key in ("overall", "tags", "interval", "correct_prompts", "variant", "num_images"):
        assert found[key] == scores[key]
    assert list(elsewhere.output.rglob("*.png")) == []
    row = json.loads(only(elsewhere.output / "geneval", "*/results.jsonl").read_text().splitlines()[0])
    assert row["filename"] == str(images / "00000" / "samples" / "00000.png")


def test_missing_images_are_refused_or_mark_the_result(told: dict[str, Any], options: Options) -> None:
    run(Painter(), options)
    images = options.output / "geneval" / "images"
    (images / "00002" / "samples" / "00003.png").unlink()
    elsewhere = replace(options, output=options.output.parent / "elsewhere", images=images)
    with pytest.raises(EvaluationError, match="00002 has 3 images, not 4"):
        run(ImageFolder(images), elsewhere)
    partial = run(ImageFolder(images), replace(elsewhere, is_partial_allowed=True))
    assert (partial["partial"], partial["num_images"]) == (True, 11)


def test_an_image_that_cannot_be_judged_fails_alone(told: dict[str, Any], options: Options) -> None:
    entries = [ENTRIES[0], {**ENTRIES[1], "include": [{"class": "cup", "count": 1, "position": ["beside", 0]}]}]
    Path(str(options.geneval.prompts)).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    outcome = evaluate(Painter(), [Geneval()], options, Ranks())
    assert outcome.failures
    assert all("beside" in line and "00001/" in line for line in outcome.failures)
    assert outcome.results is not None
    assert "geneval" not in outcome.results
    variant = only(options.output / "geneval", "*/records-0.jsonl").parent
    assert len(read_records(variant)) == 8 - len(outcome.failures)


def test_what_is_missing_is_said_before_anything_is_drawn(
    told: dict[str, Any], options: Options, tmp_path: Path
) -> None:
    painter = Painter()
    for settings, complaint in (
        ({"prompts": "nowhere.jsonl"}, r"nowhere\.jsonl.*setup_eval\.sh.*geneval\.prompts=PATH"),
        ({"detector": "nowhere.pth"}, r"nowhere\.pth.*geneval\.detector=PATH"),
        ({"clip": "nowhere"}, r"CLIP.*nowhere"),
    ):
        with pytest.raises(EvaluationError, match=complaint):
            run(painter, replace(options, geneval=replace(options.geneval, **settings)))
    assert painter.prompts == []


@pytest.mark.skipif(not OFFICIAL.is_file(), reason="the official prompt file is not here")
def test_the_official_prompts_make_553_times_4_items_and_the_official_variant(options: Options) -> None:
    painter = Painter()
    official = replace(options, geneval=replace(options.geneval, prompts=str(OFFICIAL)))
    work = module.Work.of(Job(painter, official, options.output / "geneval", painter.describe(), Ranks()))
    assert len(work.items) == 553 * 4
    assert "prompts-" not in work.variant
    tags = [entry["tag"] for entry in work.entries]
    assert [tags.count(tag) for tag in dict.fromkeys(tags)] == [80, 99, 80, 94, 100, 100]
