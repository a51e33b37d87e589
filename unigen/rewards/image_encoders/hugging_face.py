# SPDX-License-Identifier: Apache-2.0
"""Image encoders of transformers: CLIP, SigLIP, and the DINOs, whose feature is the class token of the last hidden state.

Legend: N images or texts, D width of the features, h w the network's size in pixels.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BatchEncoding,
    CLIPModel,
    PreTrainedTokenizerBase,
    SiglipModel,
)

from unigen.errors import CheckpointError
from unigen.models.pretrained import load_whole
from unigen.models.weights import model_kind
from unigen.rewards.image_encoders.encoder import ImageEncoder, View

DINO_MODEL_TYPES = {"dinov2": ("dinov2", "dinov2_with_registers"), "dinov3": ("dinov3_vit",)}


class _EncoderWithText(ImageEncoder):
    """What CLIP and SigLIP share: features of images by one call, and words by the folder's tokenizer."""

    network: Any

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.folder} has no text tokenizer: {_one_line(error)}") from error

    def _embed_pixels(self, pixels_N3hw: Tensor) -> Tensor:
        return self.network.get_image_features(pixel_values=pixels_N3hw).pooler_output

    def _words(self, texts: Sequence[str], padding: bool | str) -> BatchEncoding:
        length = self.network.config.text_config.max_position_embeddings
        words = self._tokenizer(list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt")
        return words.to(self._device)


class ClipEncoder(_EncoderWithText):
    """A CLIPModel: its projected features."""

    kind = "clip"

    def __init__(self, folder: Path, device: torch.device | str) -> None:
        _require_type(folder, ("clip",), self.kind)
        model = load_whole(CLIPModel, folder, "a CLIP")
        super().__init__(model, _view_by(_processor(folder, backend="pil"), folder), folder, device)

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        words = self._words(texts, padding=True)
        found = self.network.get_text_features(input_ids=words.input_ids, attention_mask=words.attention_mask)
        return found.pooler_output


class SiglipEncoder(_EncoderWithText):
    """A SiglipModel, such as the stage `vision` writes: its pooled features."""

    kind = "siglip"

    def __init__(self, folder: Path, device: torch.device | str) -> None:
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        _require_type(folder, ("siglip",), self.kind)
        model = load_whole(SiglipModel, folder, "a SigLIP")
        side = model.config.vision_config.image_size
        # Every SigLIP sees images so; the folders of the stage `vision` do not say it.
        processor = SiglipImageProcessorPil(size={"height": side, "width": side})
        super().__init__(model, _view_by(processor, folder), folder, device)

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        words = self._words(texts, padding="max_length")  # it pools the last position, of the full length
        return self.network.get_text_features(input_ids=words.input_ids).pooler_output


class DinoEncoder(ImageEncoder):
    """DINOv2 or DINOv3 (arXiv 2304.07193, 2508.10104)."""

    def __init__(self, kind: str, folder: Path, device: torch.device | str) -> None:
        _require_type(folder, DINO_MODEL_TYPES[kind], kind)
        self.kind = kind
        model = load_whole(AutoModel, folder, f"a {kind}")
        # DINOv3 has one processor alone; of DINOv2's two the one by Pillow is that of the published numbers.
        processor = _processor(folder, **({"backend": "pil"} if kind == "dinov2" else {}))
        super().__init__(model, _view_by(processor, folder), folder, device)

    def _embed_pixels(self, pixels_N3hw: Tensor) -> Tensor:
        return self.network(pixel_values=pixels_N3hw).last_hidden_state[:, 0]


def _require_type(folder: Path, wanted: tuple[str, ...], kind: str) -> None:
    found = model_kind(folder)
    if found not in wanted:
        raise CheckpointError(f"{folder} holds a {found}, where kind {kind} wants a {' or '.join(wanted)}")


def _processor(folder: Path, **options: Any) -> Any:
    try:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} does not say how its model sees images: {_one_line(error)}; its "
            "preprocessor_config.json belongs there"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _view_by(processor: Any, folder: Path) -> View:
    """An image as a processor of transformers shows it."""
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    if not (size["height"] and size["width"]):
        raise CheckpointError(f"{folder}: its preprocessor_config.json leaves images of many sizes ({dict(size)})")

    def prepare(image: Image.Image) -> Tensor:
        pixels_3hw: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels_3hw

    return View(
        (size["height"], size["width"]),
        processor.image_mean,
        processor.image_std,
        prepare,
        type(processor).__name__,
    )
