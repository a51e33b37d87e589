# SPDX-License-Identifier: Apache-2.0
"""UniGen as a pipeline: masked-token drawing, cached reading through codes or vision features.

Legend: B images, I codes of an image, K feature slots, F vision width.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unigen.config.folders import find_model, weights_hash
from unigen.data.batch import CodeImage, Sample, collate, fill_codes
from unigen.data.images import square_pixels
from unigen.errors import ConfigError, DataError
from unigen.generation.autoregressive import TextSettings, write_text
from unigen.generation.maskgit import MaskGitNoise, MaskGitSettings, draw_codes
from unigen.generation.pipeline import AskRequest, DrawRequest, Pipeline
from unigen.generation.steps import Decoding
from unigen.models.checkpoints import load_tokenizer, load_unigen, tokenizer_folder
from unigen.models.image_tokenizers.registry import ImageTokenizer, load_image_tokenizer
from unigen.models.unigen import UniGen
from unigen.models.vision import VisionInput, VisionTower
from unigen.sequence.layout import Document
from unigen.sequence.templates.unigen import UnigenTemplate
from unigen.sequence.vocabulary import Vocabulary


@dataclass
class UnigenPipeline(Pipeline):
    model: UniGen
    tokenizer: PreTrainedTokenizerBase
    vocabulary: Vocabulary
    image_tokenizer: ImageTokenizer
    vision_tower: VisionTower | None = None
    name: str = ""
    decoding: Decoding = "auto"
    """How the steps of drawing and writing are run."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Where its weights were read from: `model`, `image_tokenizer`, perhaps `vision_tower`."""

    @classmethod
    def load(
        cls, folder: Path, data_root: str | Path, device: torch.device, decoding: Decoding = "auto"
    ) -> "UnigenPipeline":
        model = load_unigen(folder, data_root)
        config = model.config
        tokenizer = load_tokenizer(tokenizer_folder(folder, data_root))
        # Parameters alone: the rotary frequencies are a buffer, and rounded ones turn far positions the wrong way.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16 if device.type == "cuda" else torch.float32)
        torch.nn.Module.to(model, device)
        parts = {"image_tokenizer": config.image_tokenizer, "vision_tower": config.vision_tower}
        folders = {part: find_model(name, data_root, near=folder) for part, name in parts.items() if name}
        return cls(
            model=model,
            tokenizer=tokenizer,
            vocabulary=Vocabulary.from_tokenizer(tokenizer, config.codebook_size),
            image_tokenizer=load_image_tokenizer(folders["image_tokenizer"], device),
            vision_tower=VisionTower.load(folders["vision_tower"], device) if config.vision_tower else None,
            name=str(folder),
            decoding=decoding,
            folders={"model": folder, **folders},
        )

    @property
    def template(self) -> UnigenTemplate:
        config = self.model.config
        return UnigenTemplate(
            self.tokenizer, self.vocabulary, config.num_image_codes, config.row_length, config.task_token_first
        )

    def describe(self) -> dict[str, Any]:
        config = self.model.config
        return {
            "model": self.name,
            "family": config.model_type,
            "num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "image_resolution": config.image_resolution,
            "num_image_codes": config.num_image_codes,
            "dtype": str(self.model.dtype),
            "device": str(self.model.device),
            "weights": {part: weights_hash(folder) for part, folder in self.folders.items()},
        }

    def draw_requests(
        self,
        requests: Iterable[DrawRequest],
        *,
        batch_size: int = 16,
        on_step: Callable[[int], None] = lambda step: None,
        **settings: Any,
    ) -> Iterator[Image.Image]:
        num_codes = self.model.config.num_image_codes
        # A step that has no code left to fix would only draw the last one again.
        default_steps = min(MaskGitSettings.steps, num_codes)
        chosen = _settings(MaskGitSettings, {"steps": default_steps, **settings})
        unconditional = self.template.draw_prompt("")
        for batch in _batches(requests, batch_size):
            seeds = [request.seed for request in batch]
            noise = MaskGitNoise.from_seeds(seeds, chosen.steps, num_codes, self.model.device)
            prompts = [self.template.draw_prompt(request.prompt) for request in batch]
            codes_BI = draw_codes(
                self.model, self.vocabulary, prompts, unconditional, noise, chosen, on_step, self.decoding
            )
            # One by one: convolutions round differently in batches of other sizes, and the same seed has to give the same file.
            for codes_1I in codes_BI.split(1):
                yield from images_of(self.image_tokenizer.decode(codes_1I))

    def reconstruct(self, images: Sequence[Image.Image], *, batch_size: int = 16) -> list[Image.Image]:
        found: list[Image.Image] = []
        for batch in _batches(images, batch_size):
            pixels_B3HW = torch.stack([self._pixels(image) for image in batch]).to(self.model.device)
            found += images_of(self.image_tokenizer.decode(self.image_tokenizer.encode(pixels_B3HW)))
        return found

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        chosen = _settings(TextSettings, settings)
        for batch in _batches(requests, batch_size):
            rows = collate([[self._reading_row(request)] for request in batch]).to(self.model.device)
            if rows.code_images:
                codes_NI = self.image_tokenizer.encode(torch.stack(rows.code_images))
                rows = fill_codes(rows, codes_NI, self.vocabulary)
            features_KF = self._features(rows.feature_images)
            seeds = [request.seed for request in batch]
            stop, size = self.vocabulary.message_end, len(self.tokenizer)
            for ids in write_text(self.model, rows, features_KF, stop, size, chosen, seeds, self.decoding):
                yield str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _reading_row(self, request: AskRequest) -> Sample:
        if self.vision_tower is None:
            pixels = [self._pixels(image) for image in request.images]
            if not pixels:
                raise DataError("a model that reads through image codes needs at least one image; give --image FILE")
            segments = self.template.question_over_codes(request.history, request.question, len(pixels))
            return Sample("", Document(0, segments), tuple(CodeImage(one) for one in pixels))
        seen = [self.vision_tower.preprocess(image) for image in request.images]
        counts = [self.vision_tower.num_tokens(one) for one in seen]
        segments = self.template.question_over_features(request.history, request.question, counts)
        return Sample("", Document(0, segments), feature_images=tuple(seen))

    def _pixels(self, image: Image.Image) -> Tensor:
        return square_pixels(image.convert("RGB"), self.model.config.image_resolution)

    def _features(self, images: Sequence[object]) -> Tensor | None:
        if self.vision_tower is None:
            return None
        return vision_features(self.vision_tower, images, self.model.device)


def vision_features(tower: VisionTower, images: Sequence[object], device: torch.device) -> Tensor:
    """Features (K, F) of images one after another, without the padding of shorter ones."""
    inputs = [image for image in images if isinstance(image, VisionInput)]
    if not inputs:
        return torch.zeros(0, tower.hidden_size, device=device)
    features_BNF = tower.features(VisionInput.stack(inputs).to(device))
    counts = [tower.num_tokens(one) for one in inputs]
    return torch.cat([row_NF[:count] for row_NF, count in zip(features_BNF, counts, strict=True)])


def image_codes(tokenizer: ImageTokenizer, images: Sequence[Tensor]) -> Tensor:
    """Codes (N, I) of images, some of which may be codes already."""
    pixels = [image for image in images if image.is_floating_point()]
    if not pixels:
        return torch.stack(list(images))
    encoded = iter(tokenizer.encode(torch.stack(pixels)))
    return torch.stack([next(encoded) if image.is_floating_point() else image for image in images])


def images_of(pixels_B3HW: Tensor) -> list[Image.Image]:
    """Pixels about [-1, 1] to PIL images; values are truncated as the released code does."""
    values = ((pixels_B3HW.float() + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8)
    return [Image.fromarray(np.ascontiguousarray(image)) for image in values.permute(0, 2, 3, 1).cpu().numpy()]


def _settings(kind: type[Any], given: dict[str, Any]) -> Any:
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigError(f"UniGen does not know the setting {unknown[0]!r}; choose from {', '.join(sorted(known))}")
    return kind(**given)


def _batches(requests: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(requests)
    while batch := list(islice(iterator, size)):
        yield batch
