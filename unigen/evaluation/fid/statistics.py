# SPDX-License-Identifier: Apache-2.0
"""Mean and covariance of features, gathered piece by piece in float64, kept without pickle, and the distance between two of them.

Legend: N images, D feature width.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unigen.data.whole_files import whole_file
from unigen.errors import EvaluationError

Floats = NDArray[np.float64]
OVERALL = "overall"
ABOUT = "about"


@dataclass(frozen=True)
class Statistics:
    """A Gaussian of features."""

    count: int
    """Images behind it; 0 where a file does not say."""
    mean_D: Floats
    covariance_DD: Floats


class Gatherer:
    """Sums over features; the features themselves are not kept."""

    def __init__(self) -> None:
        self.count = 0
        self._sum_D: Any = 0.0
        self._outer_DD: Any = 0.0

    def add(self, features_ND: NDArray[Any]) -> None:
        """Take in the features of more images."""
        exact_ND = features_ND.astype(np.float64)
        self.count += len(exact_ND)
        self._sum_D = self._sum_D + exact_ND.sum(axis=0)
        self._outer_DD = self._outer_DD + exact_ND.T @ exact_ND

    def statistics(self, what: str) -> Statistics:
        """Mean and unbiased covariance.

        Raises:
            EvaluationError: of fewer than two images.
        """
        if self.count < 2:
            raise EvaluationError(
                f"{what}: {self.count} images have no covariance; FID needs two, and means little below 2048"
            )
        mean_D = self._sum_D / self.count
        covariance_DD = (self._outer_DD - self.count * np.outer(mean_D, mean_D)) / (self.count - 1)
        return Statistics(self.count, mean_D, covariance_DD)


def frechet_distance(one: Statistics, other: Statistics) -> float:
    """The squared Fréchet distance between two Gaussians: |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½), by torch-fidelity."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    if one.mean_D.shape != other.mean_D.shape:
        raise EvaluationError(
            f"features of {len(one.mean_D)} and of {len(other.mean_D)} numbers cannot be compared; use one extractor"
        )
    sides = ({"mu": side.mean_D, "sigma": side.covariance_DD} for side in (one, other))
    return float(fid_statistics_to_metric(*sides, verbose=False)[KEY_METRIC_FID])


def save_statistics(groups: Mapping[str, Statistics], about: Mapping[str, Any], path: Path) -> None:
    """Write the statistics of groups of images; `about` says which features they are of. Beside and renamed."""
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[Any]] = {}
    for name, found in groups.items():
        tensors[f"{name}/mean"], tensors[f"{name}/covariance"] = found.mean_D, found.covariance_DD
        tensors[f"{name}/count"] = np.array([found.count])
    with whole_file(path) as partial:
        save_file(tensors, partial, {ABOUT: json.dumps(dict(about), sort_keys=True)})


def load_statistics(path: Path, about: Mapping[str, Any]) -> dict[str, Statistics]:
    """The statistics in a `.safetensors` of ours, or in an `.npz` with `mu` and `sigma` as other tools write them.

    Raises:
        EvaluationError: the file cannot be read, or says that it is of other features than `about` describes. An `.npz` does
            not say what it is of.
    """
    return _load_npz(path) if path.suffix == ".npz" else _load_safetensors(path, about)


def _load_npz(path: Path) -> dict[str, Statistics]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {OVERALL: Statistics(0, content["mu"].astype(np.float64), content["sigma"].astype(np.float64))}
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(f"{path} is no .npz with `mu` and `sigma`: {error}") from error


def _load_safetensors(path: Path, about: Mapping[str, Any]) -> dict[str, Statistics]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            stored = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except (OSError, SafetensorError, ValueError) as error:
        raise EvaluationError(f"cannot read the statistics in {path}: {error}") from error
    if stored != about:
        raise EvaluationError(
            f"{path} holds statistics of other features: {stored}, not {dict(about)}; compute them anew"
        )
    groups = [name.removesuffix("/count") for name in tensors if name.endswith("/count")]
    return {
        name: Statistics(int(tensors[f"{name}/count"][0]), tensors[f"{name}/mean"], tensors[f"{name}/covariance"])
        for name in groups
    }
