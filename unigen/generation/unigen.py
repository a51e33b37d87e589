# SPDX-License-Identifier: Apache-2.0
"""UniGen as a pipeline: masked-token drawing, cached reading through codes or vision features.

Legend: B images, I codes of an image, K feature slots, F vision width.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unigen.config.folders import find_model
from unigen.data.batch import Batch, CodeImage, Sample, collate, fill_codes
from unigen.errors import DataError
from unigen.generation.autoregressive import read_rows
from unigen.generation.code_pipeline import CodePipeline, settle
from unigen.generation.layer_states import PooledRow, image_row, pooled_states, require_way, text_row
from unigen.generation.maskgit import MaskGitNoise, MaskGitSettings, draw_codes
from unigen.generation.pipeline import AskRequest, DrawRequest, in_batches, settings_of
from unigen.generation.steps import Decoding
from unigen.generation.trajectories import Trajectory, draw_trajectories
from unigen.models.checkpoints import load_tokenizer, load_unigen, tokenizer_folder
from unigen.models.image_tokenizers.registry import ImageTokenizer, load_image_tokenizer
from unigen.models.unigen import UniGen
from unigen.models.vision import VisionInput, VisionTower
from unigen.sequence.layout import Document
from unigen.sequence.templates.unigen import UnigenTemplate
from unigen.sequence.vocabulary import Vocabulary


@dataclass
class UnigenPipeline(CodePipeline):
    family = "UniGen"

    model: UniGen
    tokenizer: PreTrainedTokenizerBase
    vocabulary: Vocabulary
    image_tokenizer: ImageTokenizer
    vision_tower: VisionTower | None = None
    name: str = ""
    decoding: Decoding = "auto"
    folders: dict[str, Path] = field(default_factory=dict)
    """Where its weights were read from: `model`, `image_tokenizer`, perhaps `vision_tower`."""

    @classmethod
    def load(
        cls, folder: Path, data_root: str | Path, device: torch.device, decoding: Decoding = "auto"
    ) -> "UnigenPipeline":
        model = load_unigen(folder, data_root)
        config = model.config
        tokenizer = load_tokenizer(tokenizer_folder(folder, data_root))
        settle(model, device)
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
        chosen = settings_of(self.family, MaskGitSettings, {"steps": default_steps, **settings})
        return self._draw(requests, batch_size, on_step, chosen)

    def _draw(
        self,
        requests: Iterable[DrawRequest],
        batch_size: int,
        on_step: Callable[[int], None],
        chosen: MaskGitSettings,
    ) -> Iterator[Image.Image]:
        for batch in in_batches(requests, batch_size):
            prompts, unconditional, noise = self._drawing(batch, chosen.steps)
            codes_BI = draw_codes(
                self.model, self.vocabulary, prompts, unconditional, noise, chosen, on_step, self.decoding
            )
            yield from self._drawn(codes_BI)

    def trajectories(
        self, requests: Iterable[DrawRequest], settings: MaskGitSettings, *, batch_size: int = 16
    ) -> Iterator[tuple[Image.Image, Trajectory]]:
        """The images of requests, and how each came about."""
        for batch in in_batches(requests, batch_size):
            prompts, unconditional, noise = self._drawing(batch, settings.steps)
            drawn = draw_trajectories(
                self.model, self.vocabulary, prompts, unconditional, noise, settings, self.decoding
            )
            yield from zip(self._drawn(drawn.codes_BI), drawn.split(), strict=True)

    def _drawing(self, requests: Sequence[DrawRequest], steps: int) -> tuple[list[list[int]], list[int], MaskGitNoise]:
        """Token ids of the prompts and of the empty one, and the noise of the images."""
        seeds = [request.seed for request in requests]
        noise = MaskGitNoise.from_seeds(seeds, steps, self.model.config.num_image_codes, self.model.device)
        template = self.template
        return [template.draw_prompt(request.prompt) for request in requests], template.draw_prompt(""), noise

    @property
    def layer_ways(self) -> tuple[str, ...]:
        """Texts are running text in both; images are read as codes, or as features where there is a vision tower."""
        return ("codes",) if self.vision_tower is None else ("codes", "features")

    def layer_states(self, inputs: Sequence[str] | Sequence[Image.Image], way: str, *, batch_size: int = 16) -> Tensor:
        require_way(way, self.layer_ways)
        rows = (self._pooled_row(one, way) for one in inputs)
        layers = list(self.model.llm.model.layers)
        return pooled_states(
            rows, batch_size, layers, lambda some: read_rows(self.model, *self._rows_and_features(some))
        )

    def _pooled_row(self, one: str | Image.Image, way: str) -> PooledRow:
        if isinstance(one, str):
            ids = [self.vocabulary.message_start, *self.tokenizer.encode(one, add_special_tokens=False)]
            return text_row(ids, range(1, len(ids)))
        prepare = self._preparation((one,)) if way == "features" else self._preparation_of_codes((one,))
        return image_row(prepare(AskRequest(""), ""))

    @property
    def _reader(self) -> UniGen:
        return self.model

    @property
    def _stop_id(self) -> int:
        return self.vocabulary.message_end

    @torch.no_grad()
    def _rows_and_features(self, samples: Sequence[Sample]) -> tuple[Batch, Tensor | None]:
        batch = collate([[sample] for sample in samples]).to(self.model.device)
        if batch.code_images:
            codes_NI = self.image_tokenizer.encode(torch.stack(batch.code_images))
            batch = fill_codes(batch, codes_NI, self.vocabulary)
        return batch, self._features(batch.feature_images)

    def _preparation(self, images: Sequence[Image.Image]) -> Callable[[AskRequest, str], Sample]:
        if self.vision_tower is None:
            if not images:
                raise DataError("a model that reads through image codes needs at least one image; give --image FILE")
            return self._preparation_of_codes(images)
        seen = [self.vision_tower.preprocess(image) for image in images]
        return partial(self._row_over_features, tuple(seen), [self.vision_tower.num_tokens(one) for one in seen])

    def _preparation_of_codes(self, images: Sequence[Image.Image]) -> Callable[[AskRequest, str], Sample]:
        return partial(self._row_over_codes, tuple(CodeImage(self._square(image)) for image in images))

    def _row_over_codes(self, images: tuple[CodeImage, ...], request: AskRequest, answer: str) -> Sample:
        segments = self.template.question_over_codes(request.history, request.question, len(images), answer)
        return Sample("", Document(0, segments), images)

    def _row_over_features(
        self, images: tuple[object, ...], counts: list[int], request: AskRequest, answer: str
    ) -> Sample:
        segments = self.template.question_over_features(request.history, request.question, counts, answer)
        return Sample("", Document(0, segments), feature_images=images)

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
