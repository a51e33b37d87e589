# SPDX-License-Identifier: Apache-2.0
"""What is made sure of before judging, and that each fault is noticed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.evaluation.geneval.judges import SMALL, instance, small_clip, small_mask2former, write_clip
from tests.evaluation.painter import painted
from unigen.errors import EvaluationError
from unigen.evaluation.geneval import self_test as module
from unigen.evaluation.geneval.colors import ColorClassifier
from unigen.evaluation.geneval.detector import Detector
from unigen.evaluation.geneval.judge import ImageJudge
from unigen.evaluation.geneval.self_test import self_test
from unigen.rewards.geneval_rules import Thresholds

CPU = torch.device("cpu")
ENTRY = {"tag": "single_object", "include": [{"class": "cup", "count": 1}], "prompt": "a photo of a cup"}


class ToldFinder(Detector):
    """A small detector whose objects are told."""

    def __init__(self) -> None:
        super().__init__(small_mask2former(replace(SMALL, encoder_layers=1, decoder_layers=1)), CPU)
        self.found = [instance("cup", (0, 0, 20, 20), 0.8), instance("cup", (30, 0, 50, 20), 0.6)]

    def find(self, image: Any, min_score: float = 0.0) -> Any:
        return self.found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def judge(clip: Path) -> ImageJudge:
    return ImageJudge(ToldFinder(), ColorClassifier.load(clip, CPU, "#999", True), Thresholds())


@pytest.fixture
def golden(tmp_path: Path, judge: ImageJudge) -> Path:
    """Official results of one image, as another installation may have given them: near, but not to the last digit."""
    painted(0).save(tmp_path / "00000.png")
    details = {"cup": [[0, 0, 20, 20.4, 0.81], [30, 0, 50, 20, 0.59]]}
    row = {
        "filename": "elsewhere/00000.png",
        "metadata": json.dumps(ENTRY),
        "correct": True,
        "details": json.dumps(details),
    }
    (tmp_path / "golden.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path / "golden.jsonl"


def test_a_judge_in_order_passes_and_says_what_was_tested(judge: ImageJudge, golden: Path) -> None:
    tested = self_test(judge, str(golden))
    assert (tested["device"], tested["difference_from_cpu"], tested["golden_images"]) == ("cpu", None, 1)
    assert tested["colors_recognised"].endswith("of 10")
    assert self_test(judge, None)["golden_images"] is None


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ([instance("cup", (0, 0, 20, 20), 0.8)], "1 x cup, expected 2"),
        ([instance("cup", (0, 0, 20, 20), 0.8), instance("cup", (30, 0, 40, 20), 0.6)], r"cup \[30.0.*expected"),
        ([instance("cup", (0, 0, 20, 20), 0.7), instance("cup", (30, 0, 50, 20), 0.6)], r"0\.7\], expected.*0\.81"),
        ([], "0 x cup, expected 2"),
    ],
)
def test_results_that_another_installation_gave_must_be_reproduced(
    judge: ImageJudge, golden: Path, found: list[Any], complaint: str
) -> None:
    judge.detector.found = found  # type: ignore[attr-defined]
    with pytest.raises(EvaluationError, match=complaint):
        self_test(judge, str(golden))


def test_another_verdict_over_the_same_objects_is_noticed(judge: ImageJudge, golden: Path) -> None:
    row = json.loads(golden.read_text())
    golden.write_text(json.dumps({**row, "correct": False}) + "\n")
    with pytest.raises(EvaluationError, match="correct is True"):
        self_test(judge, str(golden))


def test_numbers_that_are_not_finite_are_noticed(judge: ImageJudge) -> None:
    judge.detector.model.class_predictor.bias.data[3] = float("nan")
    with pytest.raises(EvaluationError, match="not finite"):
        self_test(judge, None)


def test_a_wrong_way_from_logits_to_objects_is_noticed(judge: ImageJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_instances", lambda *_args, **_more: [instance("bicycle", (0, 0, 15, 32), 0.99)])
    with pytest.raises(EvaluationError, match=r"known logits give.*--device cpu"):
        self_test(judge, None)


class Shaken(ToldFinder):
    """Claims to be on a GPU, whose class logits differ from the CPU's by a share of the largest."""

    def __init__(self, shake: float) -> None:
        super().__init__()
        self.shake, self.exact = shake, Detector(self.model, CPU)
        self.model.to = lambda _device: self.model
        self.device = torch.device("cuda")

    def logits(self, pixels_CHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        classes, masks = self.exact.logits(pixels_CHW)
        return classes + self.shake * classes.abs().max(), masks


def test_a_device_that_computes_otherwise_than_the_cpu_is_noticed() -> None:
    assert module._difference_from_cpu(Shaken(0.01)) == pytest.approx(0.01, rel=0.01)
    with pytest.raises(EvaluationError, match=r"cuda differ from the CPU's by 10\.0%"):
        module._difference_from_cpu(Shaken(0.1))


def test_the_count_of_recognised_colours_is_a_count(judge: ImageJudge) -> None:
    assert small_clip().config.vision_config.image_size == judge.classifier.side
    count = int(module.count_recognised_colors(judge).split()[0])
    assert 0 <= count <= 10
