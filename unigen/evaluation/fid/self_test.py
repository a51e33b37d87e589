# SPDX-License-Identifier: Apache-2.0
"""What is made sure of before distances are believed: damaged weights, a wrong kernel, or a library that computes the root of a
matrix in another way give a number and no error.

Always: two known Gaussians have their known distance; features are finite, tell two pictures from each other, and are a
picture's own whatever else is in its batch; on a GPU they are those of the CPU. Besides, they are those of a trusted installation
(`fid.golden`, its self_test.json).

Legend: N pictures, D feature width.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unigen.data.json_files import read_json
from unigen.errors import EvaluationError
from unigen.evaluation.fid.inception import FeatureExtractor, Inception
from unigen.evaluation.fid.statistics import Statistics, frechet_distance
from unigen.evaluation.known_pictures import soft_patches

SIDES = (256, 299)
"""Sizes of the pictures: one is resized on its way, the other is not."""
TOLERANCE = 0.02
"""Share of the largest feature by which one may differ: TF32 convolutions stay below it, a wrong kernel does not."""
SELF_TEST_NAME = "self_test.json"
FINGERPRINT = "features"
NUM_KEPT = 16
"""So many features of each picture are kept, spread over all."""


def self_test(extractor: FeatureExtractor, golden: str | None) -> dict[str, Any]:
    """Test an extractor; returns what was tested, for the results.

    Raises:
        EvaluationError: its distances cannot be trusted.
    """
    _require_known_distance()
    pictures = [soft_patches(side, seed) for seed, side in enumerate(SIDES)]
    features_ND = extractor.features(pictures)
    if not np.isfinite(features_ND).all():
        raise EvaluationError("self-test: features are not finite; the extractor's weights are damaged")
    if difference(features_ND[0], features_ND[1]) == 0:
        raise EvaluationError("self-test: two pictures have the same features; the extractor's weights are damaged")
    alone_ND = np.concatenate([extractor.features([picture]) for picture in pictures])
    _require_near(features_ND, alone_ND, "a picture has other features in a batch than alone")
    from_cpu = None
    if isinstance(extractor, Inception) and extractor.device.type != "cpu":
        there_ND = extractor.on_cpu().features(pictures)
        _require_near(features_ND, there_ND, f"features on {extractor.device} are not the CPU's")
        from_cpu = difference(features_ND, there_ND)
    kept = fingerprint(features_ND)
    if golden is not None:
        _require_golden(kept, Path(golden))
    return {"difference_from_cpu": from_cpu, FINGERPRINT: kept, "golden": golden}


def fingerprint(features_ND: NDArray[np.float32]) -> list[list[float]]:
    """A few features of each picture."""
    places = np.linspace(0, features_ND.shape[1] - 1, NUM_KEPT).astype(int)
    return [[round(float(value), 6) for value in features_D[places]] for features_D in features_ND]


def difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference of a feature, as a share of the largest."""
    return float(np.abs(one - other).max() / max(np.abs(other).max(), np.finfo(np.float32).tiny))


def _require_known_distance() -> None:
    """Of unit Gaussians, one of them moved by 1 and twice as wide along each of four axes: 4 * (1 + (2 - 1)²) = 8."""
    one = Statistics(0, np.zeros(4), np.eye(4))
    other = Statistics(0, np.ones(4), 4 * np.eye(4))
    found = frechet_distance(one, other)
    if abs(found - 8.0) > 1e-6:
        raise EvaluationError(
            f"self-test: two Gaussians of distance 8 have the distance {found}; install torch-fidelity anew"
        )


def _require_near(one: NDArray[Any], other: NDArray[Any], fault: str) -> None:
    if (found := difference(one, other)) > TOLERANCE:
        raise EvaluationError(f"self-test: {fault}: they differ by {found:.1%}; try --device cpu")


def _require_golden(kept: list[list[float]], file: Path) -> None:
    trusted = np.asarray((read_json(file) or {}).get(FINGERPRINT, []), dtype=np.float64)
    if trusted.shape != np.shape(kept):
        raise EvaluationError(f"fid.golden={file} is no {SELF_TEST_NAME} of an evaluation with FID")
    _require_near(np.asarray(kept), trusted, f"features are not those of {file}")
