# SPDX-License-Identifier: Apache-2.0
"""An extractor or a library whose distances cannot be trusted is noticed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from unigen.data.json_files import write_json
from unigen.errors import EvaluationError
from unigen.evaluation.fid import self_test as module
from unigen.evaluation.fid.self_test import difference, self_test

pytest.importorskip("torch_fidelity", reason="FID needs the extra eval")
Features = NDArray[np.float32]
WIDTH = 40


class Told:
    """An extractor of a few features, and a fault in them."""

    def __init__(self, fault: Callable[[Features], Any] = lambda features_ND: features_ND) -> None:
        self.identity: dict[str, Any] = {}
        self._fault = fault

    def features(self, images: Sequence[Image.Image]) -> Features:
        pixels_ND = np.stack([np.asarray(image.resize((8, 8))).reshape(-1)[:WIDTH] for image in images])
        return np.asarray(self._fault(pixels_ND.astype(np.float32) / 255), dtype=np.float32)


def test_a_sound_extractor_is_believed_and_its_features_are_kept() -> None:
    found = self_test(Told(), None)
    assert found["difference_from_cpu"] is None
    assert [len(features) for features in found["features"]] == [16, 16]


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (lambda features_ND: features_ND * np.nan, "not finite"),
        (np.zeros_like, "two pictures have the same features"),
        (lambda features_ND: features_ND / len(features_ND), "in a batch than alone"),
        (lambda features_ND: features_ND - features_ND.mean(axis=0) / 10, "in a batch than alone"),
    ],
)
def test_each_fault_of_an_extractor_is_named(fault: Callable[[Features], Any], complaint: str) -> None:
    with pytest.raises(EvaluationError, match=complaint):
        self_test(Told(fault), None)


def test_the_features_of_a_trusted_installation_are_reproduced_but_for_rounding(tmp_path: Path) -> None:
    golden = tmp_path / "self_test.json"
    write_json(self_test(Told(), None), golden)
    assert self_test(Told(lambda features_ND: features_ND + 0.001), str(golden))["golden"] == str(golden)
    with pytest.raises(EvaluationError, match=r"features are not those of .*self_test\.json: they differ by"):
        self_test(Told(lambda features_ND: features_ND**2), str(golden))
    golden.write_text("{}")
    with pytest.raises(EvaluationError, match=r"is no self_test\.json"):
        self_test(Told(), str(golden))


def test_a_distance_that_is_computed_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "frechet_distance", lambda one, other: 12.0)
    with pytest.raises(EvaluationError, match="Gaussians of distance 8 have the distance 12"):
        self_test(Told(), None)


def test_differences_are_shares_of_the_largest_feature() -> None:
    assert difference(np.array([1.0, -4.5]), np.array([1.0, -5.0])) == pytest.approx(0.1)
