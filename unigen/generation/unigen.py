# SPDX-License-Identifier: Apache-2.0
"""UniGen as a pipeline: masked-token drawing, cached reading through codes or vision features.

Legend: B images, I codes of an image, K feature slots, F vision width.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unigen.config.folders import find_model
from unigen.data.batch import CodeImage, Sample, collate, fill_codes
from unigen.data.images import square_pixels
from unigen.errors import DataError
from unigen.generation.autoregressive import (
    ReadRows,
    TextSettings,
    read_behind,
    read_rows,
    text_logits,
    write_behind,
)
from unigen.generation.layer_states import PooledRow, image_row, pooled_states, require_way, text_row
from unigen.generation.maskgit import MaskGitNoise, MaskGitSettings, draw_codes
from unigen.generation.pipeline import AskRequest, DrawRequest, Pipeline, describe_model, in_batches, settings_of
from unigen.generation.shared_reading import ReadingRow, answer_in_batches, by_images, share_beginnings
from unigen.generation.steps import Decoding
from unigen.generation.yes_no import num_states, probabilities_of_yes, yes_no_rows
from unigen.models.checkpoints import load_tokenizer, load_unigen, tokenizer_folder
from unigen.models.image_tokenizers.registry import ImageTokenizer, load_image_tokenizer
from unigen.models.unigen import UniGen
from unigen.models.vision import VisionInput, VisionTower
from unigen.sequence.layout import Document
from unigen.sequence.templates.unigen import UnigenTemplate
from unigen.sequence.vocabulary import Vocabulary


@dataclass
class UnigenPipeline(Pipeline):
    tells_probabilities = True

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
        return describe_model(self.name, self.model, self.folders)

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
        chosen = settings_of("UniGen", MaskGitSettings, {"steps": default_steps, **settings})
        unconditional = self.template.draw_prompt("")
        for batch in in_batches(requests, batch_size):
            seeds = [request.seed for request in batch]
            noise = MaskGitNoise.from_seeds(seeds, chosen.steps, num_codes, self.model.device)
            prompts = [self.template.draw_prompt(request.prompt) for request in batch]
            codes_BI = draw_codes(
                self.model, self.vocabulary, prompts, unconditional, noise, chosen, on_step, self.decoding
            )
            # One by one: convolutions round differently in batches of other sizes, and the same seed has to give the same file.
            for codes_1I in codes_BI.split(1):
                yield from images_of(self.image_tokenizer.decode(codes_1I))

    def num_beyond_row(self, prompt: str) -> int:
        return self.template.num_beyond_row(prompt)

    def reconstruct(self, images: Sequence[Image.Image], *, batch_size: int = 16) -> list[Image.Image]:
        found: list[Image.Image] = []
        for batch in in_batches(images, batch_size):
            pixels_B3HW = torch.stack([self._pixels(image) for image in batch]).to(self.model.device)
            found += images_of(self.image_tokenizer.decode(self.image_tokenizer.encode(pixels_B3HW)))
        return found

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        chosen = settings_of("UniGen", TextSettings, settings)

        def answer(batch: list[AskRequest]) -> list[str]:
            groups = [[ReadingRow(row) for row in self._reading_rows(group)] for group in by_images(batch)]
            rows = self._read(groups, chosen.max_new_tokens)
            seeds, stop = [request.seed for request in batch], self.vocabulary.message_end
            written = write_behind(self.model, rows, stop, len(self.tokenizer), chosen, seeds, self.decoding)
            return [str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in written]

        return answer_in_batches(requests, batch_size, answer)

    def yes_probabilities(self, requests: Iterable[AskRequest], *, batch_size: int = 16) -> Iterator[float]:
        return answer_in_batches(requests, batch_size, self._yes_probabilities)

    @property
    def layer_ways(self) -> tuple[str, ...]:
        """Texts are running text in both; images are read as codes, or as features where there is a vision tower."""
        return ("codes",) if self.vision_tower is None else ("codes", "features")

    def layer_states(self, inputs: Sequence[str] | Sequence[Image.Image], way: str, *, batch_size: int = 16) -> Tensor:
        require_way(way, self.layer_ways)
        rows = (self._pooled_row(one, way) for one in inputs)
        layers = list(self.model.llm.model.layers)
        return pooled_states(rows, batch_size, layers, lambda some: self._read([[ReadingRow(one)] for one in some]))

    def _pooled_row(self, one: str | Image.Image, way: str) -> PooledRow:
        if isinstance(one, str):
            ids = [self.vocabulary.message_start, *self.tokenizer.encode(one, add_special_tokens=False)]
            return text_row(ids, range(1, len(ids)))
        prepare = self._preparation((one,)) if way == "features" else self._preparation_of_codes((one,))
        return image_row(prepare(AskRequest(""), ""))

    @torch.no_grad()
    def _yes_probabilities(self, batch: list[AskRequest]) -> list[float]:
        questions = []
        for group in by_images(batch):
            prepare = self._preparation(group[0].images)
            questions.append([yes_no_rows(partial(prepare, request), request.answer_start) for request in group])
        rows = self._read([[one.row for found in group for one in found] for group in questions])
        flat = [found for group in questions for found in group]
        hidden_MD = rows.last_states(num_states(flat))
        return probabilities_of_yes(flat, text_logits(self.model, hidden_MD, len(self.tokenizer)).cpu())

    @torch.no_grad()
    def _read(self, groups: Sequence[Sequence[ReadingRow]], num_new: int = 0) -> ReadRows:
        """Read rows, given as groups about the same images, with room for new tokens; what a group begins with is read once."""
        is_shared = any(len(group) > 1 for group in groups)
        shared = share_beginnings(groups) if is_shared else None
        samples = shared.beginnings if shared else [row.sample for group in groups for row in group]
        batch = collate([[sample] for sample in samples]).to(self.model.device)
        if batch.code_images:
            codes_NI = self.image_tokenizer.encode(torch.stack(batch.code_images))
            batch = fill_codes(batch, codes_NI, self.vocabulary)
        features_KF = self._features(batch.feature_images)
        rows = read_rows(self.model, batch, features_KF, 0 if shared else num_new)
        if shared is None:
            return rows
        index_B = torch.tensor(shared.index, device=self.model.device)
        return read_behind(self.model, rows, index_B, shared.texts, num_new)

    def _reading_rows(self, requests: Sequence[AskRequest]) -> list[Sample]:
        """The rows of requests about the same images, which are prepared once."""
        prepare = self._preparation(requests[0].images)
        return [prepare(request, request.answer_start) for request in requests]

    def _preparation(self, images: Sequence[Image.Image]) -> Callable[[AskRequest, str], Sample]:
        """What makes the row of a request about these images, up to the end of the beginning of its answer."""
        if self.vision_tower is None:
            if not images:
                raise DataError("a model that reads through image codes needs at least one image; give --image FILE")
            return self._preparation_of_codes(images)
        seen = [self.vision_tower.preprocess(image) for image in images]
        return partial(self._row_over_features, tuple(seen), [self.vision_tower.num_tokens(one) for one in seen])

    def _preparation_of_codes(self, images: Sequence[Image.Image]) -> Callable[[AskRequest, str], Sample]:
        return partial(self._row_over_codes, tuple(CodeImage(self._pixels(image)) for image in images))

    def _row_over_codes(self, images: tuple[CodeImage, ...], request: AskRequest, answer: str) -> Sample:
        segments = self.template.question_over_codes(request.history, request.question, len(images), answer)
        return Sample("", Document(0, segments), images)

    def _row_over_features(
        self, images: tuple[object, ...], counts: list[int], request: AskRequest, answer: str
    ) -> Sample:
        segments = self.template.question_over_features(request.history, request.question, counts, answer)
        return Sample("", Document(0, segments), feature_images=images)

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
