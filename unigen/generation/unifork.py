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
from unigen.data.images import padded_pixels, square_pixels
from unigen.errors import CheckpointError
from unigen.generation.autoregressive import ReadRows, TextSettings, read_behind, read_rows, text_logits, write_text
from unigen.generation.layer_states import PooledRow, image_row, pooled_states, require_way, text_row
from unigen.generation.next_position import BranchReader, NextPositionSettings, draw_positions
from unigen.generation.pipeline import AskRequest, DrawRequest, Pipeline, describe_model, in_batches, settings_of
from unigen.generation.seeds import uniform_noise
from unigen.generation.shared_reading import answer_in_batches, by_images, share_beginnings
from unigen.generation.steps import Decoding
from unigen.generation.unigen import images_of
from unigen.generation.yes_no import num_states, probabilities_of_yes, yes_no_rows
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
class UniForkPipeline(Pipeline):
    model: UniFork
    tokenizer: PreTrainedTokenizerBase
    image_tokenizer: RqVaeSiglip
    tells_probabilities = True
    name: str = ""
    decoding: Decoding = "auto"
    """How the steps of drawing and writing are run."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Where its weights were read from: `model`, and `image_tokenizer` where that is not inside of it."""

    @classmethod
    def load(
        cls, folder: Path, data_root: str | Path, device: torch.device, decoding: Decoding = "auto"
    ) -> "UniForkPipeline":
        model = load_unifork(folder, data_root)
        # Parameters alone: the rotary frequencies are a buffer, and rounded ones turn far positions the wrong way.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16 if device.type == "cuda" else torch.float32)
        torch.nn.Module.to(model, device)
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
        self._require("generation", "draw")
        chosen = settings_of("UniFork", NextPositionSettings, settings)
        unconditional = self.template.draw_prompt(chosen.negative_prompt)
        codebook_KC = self.image_tokenizer.quantizer.codebook_KC.to(self.model.dtype)
        shape = (self.model.config.num_image_codes, self.image_tokenizer.depth)
        for batch in in_batches(requests, batch_size):
            prompts = [self.template.draw_prompt(request.prompt) for request in batch]
            uniform_BSP = uniform_noise([request.seed for request in batch], *shape)
            codes_BSP = draw_positions(
                self.model, codebook_KC, prompts, unconditional, uniform_BSP, chosen, on_step, self.decoding
            )
            # One by one: convolutions round differently in batches of other sizes, and the same seed has to give the same file.
            for codes_1SP in codes_BSP.split(1):
                yield from images_of(self.image_tokenizer.decode(codes_1SP))

    def num_beyond_row(self, prompt: str) -> int:
        config = self.model.config
        return max(0, len(self.template.draw_prompt(prompt)) + config.num_image_codes + 2 - config.row_length)

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        self._require("understanding", "answer")
        chosen = settings_of("UniFork", TextSettings, settings)
        stop_id = self.tokenizer.convert_tokens_to_ids(STOP)
        assert isinstance(stop_id, int)
        reader = BranchReader(self.model, "understanding")

        def answer(batch: list[AskRequest]) -> list[str]:
            rows, features_KC = self._rows_and_features([self._row(request) for request in batch])
            seeds, size = [request.seed for request in batch], len(self.tokenizer)
            written = write_text(reader, rows, features_KC, stop_id, size, chosen, seeds, self.decoding)
            return [str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in written]

        return answer_in_batches(requests, batch_size, answer)

    def yes_probabilities(self, requests: Iterable[AskRequest], *, batch_size: int = 16) -> Iterator[float]:
        self._require("understanding", "answer")
        return answer_in_batches(requests, batch_size, self._yes_probabilities)

    @torch.no_grad()
    def _yes_probabilities(self, batch: list[AskRequest]) -> list[float]:
        groups = [
            [yes_no_rows(partial(self._begun_row, one), one.answer_start) for one in group]
            for group in by_images(batch)
        ]
        shared = share_beginnings([[one.row for found in group for one in found] for group in groups])
        reader, index_B = (
            BranchReader(self.model, "understanding"),
            torch.tensor(shared.index, device=self.model.device),
        )
        rows = read_behind(reader, self._read(shared.beginnings, "understanding"), index_B, shared.texts)
        flat = [found for group in groups for found in group]
        hidden_MD = rows.last_states(num_states(flat))
        return probabilities_of_yes(flat, text_logits(reader, hidden_MD, len(self.tokenizer)).cpu())

    def _begun_row(self, request: AskRequest, answer_start: str) -> Sample:
        return self._row(replace(request, answer_start=answer_start))

    def reconstruct(self, images: Sequence[Image.Image], *, batch_size: int = 16) -> list[Image.Image]:
        found: list[Image.Image] = []
        for batch in in_batches(images, batch_size):
            pixels = [square_pixels(image.convert("RGB"), self.model.config.image_resolution) for image in batch]
            pixels_B3HW = torch.stack(pixels).to(self.model.device)
            found += images_of(self.image_tokenizer.decode(self.image_tokenizer.encode(pixels_B3HW)))
        return found

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
            return image_row(self._row(AskRequest("", (one,))))
        pixels = square_pixels(one.convert("RGB"), self.model.config.image_resolution)
        return image_row(Sample("", Document(0, template.draw("", supervised=False)), (CodeImage(pixels),)))

    def _read(self, samples: Sequence[Sample], branch: Branch) -> ReadRows:
        rows, features_KC = self._rows_and_features(samples)
        return read_rows(BranchReader(self.model, branch), rows, features_KC)

    def _rows_and_features(self, samples: Sequence[Sample]) -> tuple[Batch, Tensor]:
        """One sample a row, and the features of all its images, which take the places of their codes."""
        rows = collate([[sample] for sample in samples]).to(self.model.device)
        return replace(rows, feature_slots_K=rows.code_slots_NI.flatten()), self._features(rows.code_images)

    def _row(self, request: AskRequest) -> Sample:
        shown = [padded_pixels(image.convert("RGB"), self.model.config.image_resolution) for image in request.images]
        segments = self.template.question(request.history, request.question, len(shown), request.answer_start)
        return Sample("", Document(0, segments), tuple(CodeImage(pixels) for pixels in shown))

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
