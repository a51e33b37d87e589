# SPDX-License-Identifier: Apache-2.0
"""The vision tower: a frozen SigLIP or SigLIP2-NaFlex encoder whose penultimate layer describes an image.

Shapes: B images, N patches, D hidden size, P values of a patch, 3 x H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image
from torch import Tensor, nn
from transformers import (
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from unigen.errors import CheckpointError
from unigen.models.precision import without_autocast
from unigen.models.weights import load_exactly, read_config, read_weights

FIXED_SIZE_KINDS = ("siglip", "siglip_vision_model")
NAFLEX_KINDS = ("siglip2", "siglip2_vision_model")
LAYER_PREFIX = "encoder.layers."


@dataclass(frozen=True)
class VisionInput:
    """An image made ready for a tower, or a batch of them (`stack`), which puts B before every shape.

    `pixel_values` is (3, H, W), or (N, P) for NaFlex, where `attention_mask` (N,) marks the real patches and
    `spatial_shape` (2,) holds their rows and columns.
    """

    pixel_values: Tensor
    attention_mask: Tensor | None = None
    spatial_shape: Tensor | None = None

    @staticmethod
    def stack(inputs: Sequence[VisionInput]) -> VisionInput:
        """One batch from single images of the same tower."""

        def stacked(tensors: list[Tensor | None]) -> Tensor | None:
            present = [tensor for tensor in tensors if tensor is not None]
            return torch.stack(present) if present else None

        return VisionInput(
            torch.stack([one.pixel_values for one in inputs]),
            stacked([one.attention_mask for one in inputs]),
            stacked([one.spatial_shape for one in inputs]),
        )

    def to(self, device: torch.device | str) -> VisionInput:
        """The same input on another device."""
        moved = (t if t is None else t.to(device) for t in (self.attention_mask, self.spatial_shape))
        return VisionInput(self.pixel_values.to(device), *moved)


class VisionTower(nn.Module):
    """SigLIP without its last layer, its final norm and its pooling head; always in float32, whatever autocast says.

    The output of the penultimate layer is what LLaVA-style models read: the last layer is specialised for pooling.
    """

    def __init__(self, config: SiglipVisionConfig | Siglip2VisionConfig) -> None:
        """`config` is that of the whole encoder; the tower has one layer less."""
        super().__init__()
        self.config = config
        self.encoder = penultimate_encoder(config)
        if self.is_naflex:
            from transformers import Siglip2ImageProcessor  # brings torchvision and dynamo, which take seconds

            self._processor = Siglip2ImageProcessor(
                patch_size=self._whole("patch_size"), max_num_patches=self._whole("num_patches")
            )

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu", *, trainable: bool = False) -> VisionTower:
        """Read a SigLIP or SigLIP2 folder, the whole model or its vision half; in eval mode, frozen unless `trainable`.

        Raises:
            CheckpointError: another kind of model, an unreadable file, or weights that do not fit.
        """
        folder = Path(folder)
        config = vision_config(folder)
        with init_empty_weights(include_buffers=False):
            tower = cls(config)
        last_layer = f"{LAYER_PREFIX}{config.num_hidden_layers - 1}."
        load_exactly(tower.encoder, _encoder_weights(folder, last_layer), folder)
        return tower.to(device).eval().requires_grad_(trainable)

    @classmethod
    def from_config(cls, config_path: Path, device: torch.device | str = "meta") -> VisionTower:
        """A frozen tower with random weights (none at all on the meta device) from a config.json or its folder."""
        with torch.device(device):
            return cls(vision_config(Path(config_path))).eval().requires_grad_(False)

    @property
    def is_naflex(self) -> bool:
        """Whether images keep their aspect ratio, so that the number of tokens differs from image to image."""
        return self.config.model_type in NAFLEX_KINDS

    @property
    def hidden_size(self) -> int:
        """Width of a feature."""
        return self.config.hidden_size

    @property
    def image_size(self) -> int:
        """Side in pixels of the square images of a tower of fixed size."""
        return self._whole("image_size")

    @property
    def max_tokens(self) -> int:
        """Tokens of an image; for NaFlex the most it can have."""
        if self.is_naflex:
            return self.config.num_patches
        return (self._whole("image_size") // self._whole("patch_size")) ** 2

    def preprocess(self, image: Image.Image) -> VisionInput:
        """A PIL image -> the input of one image.

        SigLIP: RGB, resized (bicubic) to a square whatever the aspect ratio, values in [-1, 1]. NaFlex: resized to the
        largest size of whole patches that keeps the aspect ratio and has at most `max_tokens` of them.
        """
        image = image.convert("RGB")
        if self.is_naflex:
            return self._preprocess_naflex(image)
        side = self._whole("image_size")
        pixels_HW3 = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
        return VisionInput(torch.from_numpy((pixels_HW3 / 255 - 0.5) / 0.5).permute(2, 0, 1).contiguous())

    def num_tokens(self, one: VisionInput) -> int:
        """How many features the image of a single (not stacked) input has."""
        return self.max_tokens if one.spatial_shape is None else int(one.spatial_shape.prod())

    def features(self, inputs: VisionInput) -> Tensor:
        """A stacked batch -> features (B, N, D); of a NaFlex image the first `num_tokens` are real, the rest zero."""
        arguments: dict[str, Tensor | None] = {"pixel_values": inputs.pixel_values.float()}
        if self.is_naflex:
            arguments |= {"pixel_attention_mask": inputs.attention_mask, "spatial_shapes": inputs.spatial_shape}
        with without_autocast(inputs.pixel_values.device):
            features_BND = self.encoder(**arguments).last_hidden_state
        if inputs.attention_mask is None:
            return features_BND
        return features_BND.masked_fill(inputs.attention_mask[..., None] == 0, 0.0)

    def forward(self, inputs: VisionInput) -> Tensor:
        """The same as `features`, for wrappers that call the module."""
        return self.features(inputs)

    def _whole(self, name: str) -> int:
        size = getattr(self.config, name)
        if not isinstance(size, int):
            raise CheckpointError(f"vision_config.{name}={size!r}: only one whole number (a square) is supported")
        return size

    def _preprocess_naflex(self, image: Image.Image) -> VisionInput:
        ready = self._processor(images=[image], return_tensors="pt")
        return VisionInput(ready["pixel_values"][0], ready["pixel_attention_mask"][0], ready["spatial_shapes"][0])


def penultimate_encoder(config: SiglipVisionConfig | Siglip2VisionConfig) -> SiglipVisionModel | Siglip2VisionModel:
    """What of an encoder gives its penultimate layer's output, in float32: no last layer, no final norm, no pooling head."""
    shortened = config.to_dict() | {"num_hidden_layers": config.num_hidden_layers - 1, "vision_use_head": False}
    model_class = Siglip2VisionModel if config.model_type in NAFLEX_KINDS else SiglipVisionModel
    encoder = model_class._from_config(type(config).from_dict(shortened), dtype=torch.float32)
    encoder.post_layernorm = nn.Identity()
    return encoder


def vision_config(path: Path) -> SiglipVisionConfig | Siglip2VisionConfig:
    """The vision half of the configuration of a SigLIP or SigLIP2 folder, or of its config.json."""
    config: dict[str, Any] = read_config(path)
    kind = config.get("model_type")
    if kind not in FIXED_SIZE_KINDS + NAFLEX_KINDS:
        known = ", ".join(FIXED_SIZE_KINDS + NAFLEX_KINDS)
        raise CheckpointError(f"{path} holds a vision tower of model_type {kind!r}; known are {known}")
    sizes = config.get("vision_config", config)
    config_class = Siglip2VisionConfig if kind in NAFLEX_KINDS else SiglipVisionConfig
    return config_class.from_dict(sizes)


def _encoder_weights(folder: Path, last_layer: str) -> dict[str, Tensor]:
    # A whole model and its vision half name the same weights with and without this prefix.
    def bare(name: str) -> str:
        return name.removeprefix("vision_model.")

    def is_wanted(name: str) -> bool:
        name = bare(name)
        if name.endswith("position_ids") or name.startswith(last_layer):
            return False
        return name.startswith(("embeddings.", LAYER_PREFIX))

    return {bare(name): tensor for name, tensor in read_weights(folder, is_wanted).items()}
