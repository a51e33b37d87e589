# SPDX-License-Identifier: Apache-2.0
"""UniFork as a pipeline: drawing position by position, reading through the image tokenizer's features.

Legend: B images, N images of a batch, S positions, P depths, C features.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unigen.config.folders import find_model
from unigen.data.batch import Batch, CodeImage, Sample, collate
from unigen.data.images import padded_pixels
from unigen.errors import CheckpointError
from unigen.generation.autoregressive import ReadRows, read_rows
from unigen.generation.code_pipeline import CodePipeline, settle
from unigen.generation.layer_states import PooledRow, image_row, pooled_states, require_way, text_row
from unigen.generation.next_position import BranchReader, NextPositionSettings, draw_positions
from unigen.generation.pipeline import AskRequest, DrawRequest, in_batches, settings_of
from unigen.generation.seeds import uniform_noise
from unigen.generation.steps import Decoding
from unigen.models.checkpoints import load_tokenizer
from unigen.models.image_tokenizers.registry import load_image_tokenizer
from unigen.models.image_tokenizers.rqvae_siglip import RqVaeSiglip
from unigen.models.unifork import UniFork
from unigen.models.unifork_checkpoints import load_inner_image_tokenizer, load_unifork
from unigen.models.unifork_config import Branch, UniForkConfig
from unigen.sequence.layout import Document
from unigen.sequence.templates.unifork import UniForkTemplate

STOP = "<|im_end|>"


def unifork_template(config: UniForkConfig, tokenizer: PreTrainedTokenizerBase) -> UniForkTemplate:
    """Of the rows that a model was, or is to be, trained on."""
    return UniForkTemplate(
        tokenizer,
        config.start_of_image_id,
        config.end_of_image_id,
        config.num_image_codes,
        config.row_length,
        config.draw_format,
        config.read_format,
    )


@dataclass
class UniForkPipeline(CodePipeline):
    family = "UniFork"

    model: UniFork
    tokenizer: PreTrainedTokenizerBase
    image_tokenizer: RqVaeSiglip
    name: str = ""
    decoding: Decoding = "auto"
    folders: dict[str, Path] = field(default_factory=dict)
    """Where its weights were read from: `model`, and `image_tokenizer` where that is not inside of it."""

    @classmethod
    def load(
        cls, folder: Path, data_root: str | Path, device: torch.device, decoding: Decoding = "auto"
    ) -> "UniForkPipeline":
        model = load_unifork(folder, data_root)
        settle(model, device)
        inner, folders = load_inner_image_tokenizer(folder, data_root), {"model": folder}
        if inner is None:
            folders["image_tokenizer"] = find_model(model.config.image_tokenizer, data_root, near=folder)
            found = load_image_tokenizer(folders["image_tokenizer"], device)
            if not isinstance(found, RqVaeSiglip):
                raise CheckpointError(f"{folders['image_tokenizer']} is no tokenizer of several codes a position")
            inner = found
        torch.nn.Module.to(inner, device)
        return cls(model, load_tokenizer(folder), inner, str(folder), decoding, folders)

    @property
    def template(self) -> UniForkTemplate:
        return unifork_template(self.model.config, self.tokenizer)

    def draw_requests(
        self,
        requests: Iterable[DrawRequest],
        *,
        batch_size: int = 16,
        on_step: Callable[[int], None] = lambda step: None,
        **settings: Any,
    ) -> Iterator[Image.Image]:
        self._require("generation", "draw")
        chosen = settings_of(self.family, NextPositionSettings, settings)
        return self._draw(requests, batch_size, on_step, chosen)

    def _draw(
        self,
        requests: Iterable[DrawRequest],
        batch_size: int,
        on_step: Callable[[int], None],
        chosen: NextPositionSettings,
    ) -> Iterator[Image.Image]:
        unconditional = self.template.draw_prompt(chosen.negative_prompt)
        codebook_KC = self.image_tokenizer.quantizer.codebook_KC.to(self.model.dtype)
        shape = (self.model.config.num_image_codes, self.image_tokenizer.depth)
        for batch in in_batches(requests, batch_size):
            prompts = [self.template.draw_prompt(request.prompt) for request in batch]
            uniform_BSP = uniform_noise([request.seed for request in batch], *shape)
            codes_BSP = draw_positions(
                self.model, codebook_KC, prompts, unconditional, uniform_BSP, chosen, on_step, self.decoding
            )
            yield from self._drawn(codes_BSP)

    @property
    def layer_ways(self) -> tuple[str, ...]:
        """The branches, each with rows of its own task: running text and images to be read, or prompts and images to be drawn."""
        return tuple(self.model.config.branches)

    def layer_states(self, inputs: Sequence[str] | Sequence[Image.Image], way: str, *, batch_size: int = 16) -> Tensor:
        require_way(way, self.layer_ways)
        branch: Branch = "generation" if way == "generation" else "understanding"
        rows = (self._pooled_row(one, branch) for one in inputs)
        layers = [*self.model.shared_layers, *self.model.branch_layers(branch)]
        return pooled_states(rows, batch_size, layers, lambda some: self._read(some, branch))

    def _pooled_row(self, one: str | Image.Image, branch: Branch) -> PooledRow:
        template = self.template
        if isinstance(one, str):
            if branch == "generation":
                return text_row(template.draw_prompt(one), template.caption_positions(one))
            ids = template.running_text(one)
            return text_row(ids, range(1, len(ids)))
        if branch == "understanding":
            return image_row(self._preparation((one,))(AskRequest(""), ""))
        drawn = Document(0, template.draw("", supervised=False))
        return image_row(Sample("", drawn, (CodeImage(self._square(one)),)))

    @property
    def _reader(self) -> BranchReader:
        self._require("understanding", "answer")
        return BranchReader(self.model, "understanding")

    @property
    def _stop_id(self) -> int:
        found = self.tokenizer.convert_tokens_to_ids(STOP)
        assert isinstance(found, int)
        return found

    def _read(self, samples: Sequence[Sample], branch: Branch) -> ReadRows:
        rows, features_KC = self._rows_and_features(samples)
        return read_rows(BranchReader(self.model, branch), rows, features_KC)

    def _rows_and_features(self, samples: Sequence[Sample]) -> tuple[Batch, Tensor]:
        """One sample a row, and the features of all its images, which take the places of their codes."""
        rows = collate([[sample] for sample in samples]).to(self.model.device)
        return replace(rows, feature_slots_K=rows.code_slots_NI.flatten()), self._features(rows.code_images)

    def _preparation(self, images: Sequence[Image.Image]) -> Callable[[AskRequest, str], Sample]:
        side = self.model.config.image_resolution
        return partial(self._row, tuple(CodeImage(padded_pixels(image.convert("RGB"), side)) for image in images))

    def _row(self, images: tuple[CodeImage, ...], request: AskRequest, answer: str) -> Sample:
        segments = self.template.question(request.history, request.question, len(images), answer)
        return Sample("", Document(0, segments), images)

    @torch.no_grad()
    def _features(self, images: Sequence[Tensor]) -> Tensor:
        """Features (K, C) of the images of a batch, one after another."""
        if not images:
            return torch.zeros(0, self.image_tokenizer.feature_size, device=self.model.device)
        codes_NSP = self.image_tokenizer.encode(torch.stack(list(images)))
        return self.image_tokenizer.lookup(codes_NSP).flatten(0, 1)

    def _require(self, branch: Branch, verb: str) -> None:
        if not self.model.config.has(branch):
            raise CheckpointError(f"{self.name} has no {branch} branch, so it cannot {verb}; take another checkpoint")
