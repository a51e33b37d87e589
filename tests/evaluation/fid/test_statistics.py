# SPDX-License-Identifier: Apache-2.0
"""The distance of two Gaussians and what is kept of them: equal to the plain formula, exact in pieces, free of pickle."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from unigen.errors import EvaluationError
from unigen.evaluation.fid.statistics import (
    Gatherer,
    Statistics,
    frechet_distance,
    load_statistics,
    save_statistics,
)

pytest.importorskip("torch_fidelity", reason="FID needs the extra eval")
ABOUT = {"extractor": "tiny"}


def features(seed: int, count: int = 50, width: int = 6) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + seed).astype(np.float32)


def gathered(*pieces: NDArray[np.float32]) -> Statistics:
    gatherer = Gatherer()
    for piece in pieces:
        gatherer.add(piece)
    return gatherer.statistics("test")


def plain_distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The formula as it stands in the paper."""
    means = [side.astype(np.float64).mean(axis=0) for side in (one, other)]
    covariances = [np.cov(side.astype(np.float64), rowvar=False) for side in (one, other)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    return float(np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root))


def test_the_distance_is_that_of_the_formula() -> None:
    one, other = features(0), features(1)
    assert frechet_distance(gathered(one), gathered(other)) == pytest.approx(plain_distance(one, other), rel=1e-6)
    assert frechet_distance(gathered(one), gathered(one)) == pytest.approx(0, abs=1e-6)


def test_features_in_pieces_give_the_statistics_of_the_whole() -> None:
    whole = features(3, 64)
    found = gathered(whole[:10], whole[10:11], whole[11:])
    assert found.count == 64
    np.testing.assert_allclose(found.mean_D, whole.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance_DD, np.cov(whole.astype(np.float64), rowvar=False), rtol=1e-9)


def test_a_singular_covariance_still_has_a_distance() -> None:
    few, others = features(1, 4), features(2, 50)
    assert np.isfinite(frechet_distance(gathered(few), gathered(others)))
    with pytest.raises(EvaluationError, match="1 images have no covariance"):
        gathered(few[:1])


def test_stored_statistics_come_back_and_belong_to_their_features(tmp_path: Path) -> None:
    stored = {"overall": gathered(features(1)), "food": gathered(features(2))}
    save_statistics(stored, ABOUT, tmp_path / "s.safetensors")
    found = load_statistics(tmp_path / "s.safetensors", ABOUT)
    assert set(found) == {"overall", "food"}
    assert found["food"].count == 50
    assert frechet_distance(found["overall"], stored["overall"]) == pytest.approx(0, abs=1e-6)
    with pytest.raises(EvaluationError, match="statistics of other features"):
        load_statistics(tmp_path / "s.safetensors", {"extractor": "other"})


def test_an_npz_of_another_tool_is_read_without_pickle(tmp_path: Path) -> None:
    found = gathered(features(1))
    np.savez(tmp_path / "s.npz", mu=found.mean_D, sigma=found.covariance_DD)
    assert frechet_distance(load_statistics(tmp_path / "s.npz", ABOUT)["overall"], found) == pytest.approx(0, abs=1e-6)
    np.savez(tmp_path / "bad.npz", mu=np.array([{"a": 1}], dtype=object), sigma=found.covariance_DD)
    with pytest.raises(EvaluationError, match="allow_pickle"):
        load_statistics(tmp_path / "bad.npz", ABOUT)
    (tmp_path / "s.safetensors").write_bytes(b"no tensors")
    with pytest.raises(EvaluationError, match="cannot read"):
        load_statistics(tmp_path / "s.safetensors", ABOUT)


def test_other_widths_cannot_be_compared() -> None:
    with pytest.raises(EvaluationError, match="6 and of 5 numbers"):
        frechet_distance(gathered(features(0)), gathered(features(0, width=5)))
