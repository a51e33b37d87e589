# SPDX-License-Identifier: Apache-2.0
"""What all image encoders share: frozen networks that turn images, and some also words, into features of length 1.

Legend: N images or texts, D width of the features, H W any size in pixels, h w the network's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from unigen.config.folders import weights_hash
from unigen.errors import ConfigError
from unigen.models.precision import without_autocast

T = TypeVar("T")
DEFAULT_BATCH_SIZE = 64


@dataclass(frozen=True)
class View:
    """How a network wants to see an image."""

    size: tuple[int, int]
    """Height and width in pixels."""
    mean: Sequence[float]
    deviation: Sequence[float]
    """Of the three colours in [0, 1]."""
    prepare: Callable[[Image.Image], Tensor]
    """Makes the network's input (3, h, w) of an RGB image, as the network's publishers do."""
    name: str
    """What it is, for a manifest."""


class ImageEncoder(ABC):
    """Computes in the dtype of its weights, float32, whatever autocast says.

    It is no module: a stage that trains through it must neither save it nor shard it.
    """

    kind: str
    """Which of `unigen.config.policy.EncoderKind`."""

    def __init__(self, network: nn.Module, view: View, folder: Path, device: torch.device | str) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.view = view
        self.folder = folder
        self._device = torch.device(device)

    @abstractmethod
    def _embed_pixels(self, pixels_N3hw: Tensor) -> Tensor:
        """The network's answer (N, D) to inputs made ready for it."""

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        """The answer (N, D) of its text half."""
        raise ConfigError(f"the encoder {self.kind} in {self.folder} reads no text; compare with the original image")

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image], batch_size: int = DEFAULT_BATCH_SIZE) -> Tensor:
        """Features (N, D) of images, each seen as the network's publishers show it images."""
        features = []
        for batch in _batches(images, batch_size):
            pixels_N3hw = torch.stack([self.view.prepare(image.convert("RGB")) for image in batch])
            features.append(self._of_ready_pixels(pixels_N3hw.to(self._device)))
        return torch.cat(features)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch_size: int = DEFAULT_BATCH_SIZE) -> Tensor:
        """Features (N, D) of texts, to be compared with those of images; what is too long for the network is cut.

        Raises:
            ConfigError: it has no text half.
        """
        features = []
        for batch in _batches(texts, batch_size):
            with without_autocast(self._device):
                features.append(F.normalize(self._embed_texts(batch), dim=-1))
        return torch.cat(features)

    def features(self, pixels_N3HW: Tensor) -> Tensor:
        """Features (N, D) of pixels in [-1, 1], with their gradient.

        Everything is done by tensors: a bicubic resize straight to the network's size, whatever the aspect ratio, as in UAE's
        cold start. Of an image of that size it gives what `encode` gives, but for DINOv2, of whose images that cuts off a margin.
        """
        pixels_N3HW = pixels_N3HW.to(self._device, self._dtype)
        if pixels_N3HW.shape[-2:] != self.view.size:
            pixels_N3HW = F.interpolate(pixels_N3HW, self.view.size, mode="bicubic", antialias=True)
        mean, deviation = (
            pixels_N3HW.new_tensor(values)[:, None, None] for values in (self.view.mean, self.view.deviation)
        )
        return self._of_ready_pixels(((pixels_N3HW + 1) / 2 - mean) / deviation)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What a manifest says of it, the hash of its weights included."""
        return {
            "kind": self.kind,
            "folder": self.folder.name,
            "weights": weights_hash(self.folder),
            "preprocessing": self.view.name,
            "size": list(self.view.size),
            "mean": list(self.view.mean),
            "deviation": list(self.view.deviation),
        }

    def _of_ready_pixels(self, pixels_N3hw: Tensor) -> Tensor:
        with without_autocast(self._device):
            return F.normalize(self._embed_pixels(pixels_N3hw.to(self._dtype)), dim=-1)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
