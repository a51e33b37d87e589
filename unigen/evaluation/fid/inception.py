# SPDX-License-Identifier: Apache-2.0
"""The features of FID: torch-fidelity's port of the Inception network of 2015, whose weights the user brings.

Other ports, weights and ways of resizing give other numbers that cannot be compared, so all of that is in `identity`.

Legend: B images, H, W pixels, D feature width.
"""

import copy
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unigen.data.manifest import file_hash
from unigen.errors import EvaluationError

WEIGHTS_NAME = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS_NAME}"
LAYER = "2048"


class FeatureExtractor(Protocol):
    """Makes features of images."""

    identity: dict[str, Any]
    """All that the features depend on."""

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Features (B, D) of RGB images of any sizes."""
        ...


@dataclass
class Inception:
    """torch-fidelity's extractor."""

    network: torch.nn.Module
    device: torch.device
    identity: dict[str, Any]

    def on_cpu(self) -> "Inception":
        """The same weights on the CPU."""
        return Inception(copy.deepcopy(self.network).cpu(), torch.device("cpu"), self.identity)

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        return np.concatenate([self._of_one_size(batch) for batch in _same_sizes(images)])

    @torch.inference_mode()
    def _of_one_size(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        pixels_BHW3 = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        features_BD: torch.Tensor = self.network(pixels_BHW3.permute(0, 3, 1, 2).to(self.device))[0]
        return features_BD.float().cpu().numpy()


@lru_cache(maxsize=1)
def load_inception(path: Path, sha256_prefix: str, device: torch.device | str) -> Inception:
    """The extractor with the weights of a file; the last one is kept, since images and scores both ask for it.

    Raises:
        EvaluationError: torch-fidelity is not installed; the file is absent, another one, or no such weights.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise EvaluationError("FID needs torch-fidelity; run bash scripts/setup.sh eval") from error
    if not path.is_file():
        raise EvaluationError(f"no Inception weights at {path}; fetch {WEIGHTS_URL} to there, or give fid.weights=FILE")
    found = file_hash(path)
    if not found.startswith(sha256_prefix):
        raise EvaluationError(
            f"{path} has the SHA-256 {found}, which should begin with {sha256_prefix}; fetch {WEIGHTS_URL} again, or set "
            "fid.weights_sha256 for weights of your own, whose distances are not comparable with others'"
        )
    try:
        # torch-fidelity unpickles freely; a file that passes this cannot run code.
        torch.load(path, map_location="meta", weights_only=True)
        network = FeatureExtractorInceptionV3("inception-v3-compat", [LAYER], feature_extractor_weights_path=str(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise EvaluationError(f"{path} holds no Inception weights: {str(error).splitlines()[0]}") from error
    identity = {
        "library": f"torch-fidelity {version('torch-fidelity')}",
        "extractor": "inception-v3-compat",
        "layer": LAYER,
        "resize": "bilinear to 299 as TensorFlow 1 does, inside the network",
        "weights_sha256": found,
    }
    return Inception(network.to(device), torch.device(device), identity)


def _same_sizes(images: Sequence[Image.Image]) -> Iterator[list[Image.Image]]:
    for _, batch in groupby(images, key=lambda image: image.size):
        yield list(batch)
