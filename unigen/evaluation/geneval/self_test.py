# SPDX-License-Identifier: Apache-2.0
"""What is made sure of before a judge judges: wrong weights, or a GPU that computes nonsense, give a low score and no error.

Three things always: the way from logits to objects gives the known objects of known logits; the detector's numbers are finite;
and on a GPU they are those of the CPU. Besides, results that another installation gave (`geneval.golden`) are reproduced.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unigen.errors import EvaluationError
from unigen.evaluation.geneval.colors import COLORS
from unigen.evaluation.geneval.detector import Detector
from unigen.evaluation.geneval.judge import ImageJudge
from unigen.evaluation.geneval.pixels import open_upright, prepare
from unigen.evaluation.geneval.postprocess import Instance, find_instances
from unigen.evaluation.items import read_entries
from unigen.evaluation.known_pictures import soft_patches
from unigen.rewards.geneval_rules import overlap

SIDE = 256
DEVICE_TOLERANCE = 0.02
"""Share of the largest logit by which a GPU may differ: TF32 convolutions stay below it, a wrong kernel does not."""
SCORE_TOLERANCE = 0.02
LEAST_OVERLAP = 0.9


def self_test(judge: ImageJudge, golden: str | None) -> dict[str, Any]:
    """Test a judge; returns what was tested, for the results.

    Raises:
        EvaluationError: the judge cannot be trusted.
    """
    device = judge.detector.device
    _require_known_objects(device)
    difference = _difference_from_cpu(judge.detector)
    return {
        "device": str(device),
        "difference_from_cpu": difference,
        "colors_recognised": count_recognised_colors(judge),
        "golden_images": _require_golden(judge, Path(golden)) if golden else None,
    }


def known_logits(device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits of two queries on a grid of 8 x 8: one sure of class 1 in the left half, one of no object."""
    classes_QK = torch.tensor([[0.0, 9.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0]], device=device)
    masks_QHW = torch.full((2, 8, 8), -4.0, device=device)
    masks_QHW[0, :, :4] = 4.0
    return classes_QK, masks_QHW


def count_recognised_colors(judge: ImageJudge) -> str:
    """How many of ten flat colours are called by their names: said, not required, since it depends on the CLIP."""
    mask_HW = torch.ones(SIDE, SIDE, dtype=torch.bool)
    whole = Instance(0, (0.0, 0.0, float(SIDE), float(SIDE)), 1.0, mask_HW)
    patches = {color: Image.new("RGB", (SIDE, SIDE), color) for color in COLORS}
    named = [judge.classifier.classify(patch, [whole], "object")[0] == color for color, patch in patches.items()]
    return f"{sum(named)} of {len(named)}"


def _require_known_objects(device: torch.device) -> None:
    found = [(one.label, one.box) for one in find_instances(*known_logits(device), (32, 32), (32, 32), min_score=0.5)]
    expected = [(1, (0.0, 0.0, 16.0, 32.0))]
    if found != expected:
        raise EvaluationError(f"self-test: on {device} known logits give {found}, not {expected}; try --device cpu")


def _difference_from_cpu(detector: Detector) -> float | None:
    """The largest difference of a class logit between the device and the CPU, as a share of the largest; None on the CPU."""
    pixels_CHW = prepare(soft_patches(SIDE)).pixels_CHW[:, :SIDE, :SIDE]
    here = [values.float().cpu() for values in detector.logits(pixels_CHW)]
    if not all(values.isfinite().all() for values in here):
        raise EvaluationError("self-test: the detector's numbers are not finite; its checkpoint is damaged")
    if detector.device.type == "cpu":
        return None
    twin = Detector(detector.model, torch.device("cpu"))
    there, _ = twin.logits(pixels_CHW)
    detector.model.to(detector.device)
    difference = float((here[0] - there).abs().max() / there.abs().max())
    if difference > DEVICE_TOLERANCE:
        raise EvaluationError(
            f"self-test: class logits on {detector.device} differ from the CPU's by {difference:.1%}; try --device cpu"
        )
    return difference


def _require_golden(judge: ImageJudge, file: Path) -> int:
    """Judge the images of a results file again; returns how many. An image is looked for as named there, then beside the file."""
    rows = read_entries(file, ("filename", "metadata", "correct", "details"), "name results in the official JSONL")
    for row in rows:
        place = next(
            (path for path in (Path(row["filename"]), file.parent / row["filename"]) if path.is_file()),
            file.parent / Path(row["filename"]).name,
        )
        found = judge.judge(json.loads(row["metadata"]), open_upright(place))
        fault = _disagreement(json.loads(row["details"]), found.details)
        if fault is None and found.verdict.correct is not bool(row["correct"]):
            fault = f"correct is {found.verdict.correct}"
        if fault:
            raise EvaluationError(f"self-test: {place} is not judged as {file} says: {fault}")
    return len(rows)


def _disagreement(
    expected: Mapping[str, Sequence[Sequence[float]]], found: Mapping[str, Sequence[Sequence[float]]]
) -> str | None:
    """In what two lists of objects differ, None if only by rounding."""
    for name in sorted({*expected, *found}):
        before, after = expected.get(name, ()), found.get(name, ())
        if len(before) != len(after):
            return f"{len(after)} x {name}, expected {len(before)}"
        for one, other in zip(before, after, strict=True):
            if overlap(one, other) < LEAST_OVERLAP or abs(one[4] - other[4]) > SCORE_TOLERANCE:
                return f"{name} {list(other)}, expected {list(one)}"
    return None
