# SPDX-License-Identifier: Apache-2.0
"""What pipelines have in common whose models draw the codes of an image tokenizer and write text.

Legend: B images, M states that are looked at, D width.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from unigen.config.folders import weights_hash
from unigen.data.batch import Batch, Sample
from unigen.data.images import square_pixels
from unigen.generation.autoregressive import Reader, TextSettings, text_logits, write_behind
from unigen.generation.pipeline import AskRequest, Pipeline, in_batches, settings_of
from unigen.generation.shared_reading import ReadingRow, answer_in_batches, by_images, read_groups
from unigen.generation.steps import Decoding
from unigen.generation.yes_no import num_states, probabilities_of_yes, yes_no_rows
from unigen.models.image_tokenizers.registry import ImageTokenizer


class DrawingTemplate(Protocol):
    """What is asked of a family's template here."""

    def num_beyond_row(self, caption: str) -> int:
        """See `Pipeline.num_beyond_row`."""


class CodePipeline(Pipeline):
    """Reads and writes as every such model does; how rows are made and images are drawn is each family's affair."""

    family: ClassVar[str]
    """As people write it."""
    model: Any
    tokenizer: PreTrainedTokenizerBase
    image_tokenizer: ImageTokenizer
    decoding: Decoding
    """How the steps of drawing and writing are run."""
    folders: dict[str, Path]
    """Where its weights were read from, by part."""
    tells_probabilities = True

    @property
    @abstractmethod
    def template(self) -> DrawingTemplate:
        """Of the rows that the model was trained on."""

    @property
    @abstractmethod
    def _reader(self) -> Reader:
        """What reads questions and writes answers."""

    @property
    @abstractmethod
    def _stop_id(self) -> int:
        """The token that ends an answer."""

    @abstractmethod
    def _preparation(self, images: Sequence[Image.Image]) -> Callable[[AskRequest, str], Sample]:
        """What makes the row of a request about these images, up to the end of the beginning of its answer."""

    @abstractmethod
    def _rows_and_features(self, samples: Sequence[Sample]) -> tuple[Batch, Tensor | None]:
        """One sample a row, on the model's device, and the features of its images that enter as such."""

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

    def num_beyond_row(self, prompt: str) -> int:
        return self.template.num_beyond_row(prompt)

    def reconstruct(self, images: Sequence[Image.Image], *, batch_size: int = 16) -> list[Image.Image]:
        found: list[Image.Image] = []
        for batch in in_batches(images, batch_size):
            pixels_B3HW = torch.stack([self._square(image) for image in batch]).to(self.model.device)
            found += images_of(self.image_tokenizer.decode(self.image_tokenizer.encode(pixels_B3HW)))
        return found

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        chosen, reader = settings_of(self.family, TextSettings, settings), self._reader

        def answer(batch: list[AskRequest]) -> list[str]:
            groups = [[ReadingRow(row) for row in self._reading_rows(group)] for group in by_images(batch)]
            rows = read_groups(reader, groups, self._rows_and_features, chosen.max_new_tokens)
            seeds, size = [request.seed for request in batch], len(self.tokenizer)
            written = write_behind(reader, rows, self._stop_id, size, chosen, seeds, self.decoding)
            return [str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in written]

        return answer_in_batches(requests, batch_size, answer)

    def yes_probabilities(self, requests: Iterable[AskRequest], *, batch_size: int = 16) -> Iterator[float]:
        return answer_in_batches(requests, batch_size, partial(self._yes_probabilities, self._reader))

    @torch.no_grad()
    def _yes_probabilities(self, reader: Reader, batch: list[AskRequest]) -> list[float]:
        questions = []
        for group in by_images(batch):
            prepare = self._preparation(group[0].images)
            questions.append([yes_no_rows(partial(prepare, request), request.answer_start) for request in group])
        groups = [[one.row for found in group for one in found] for group in questions]
        rows = read_groups(reader, groups, self._rows_and_features)
        flat = [found for group in questions for found in group]
        hidden_MD = rows.last_states(num_states(flat))
        return probabilities_of_yes(flat, text_logits(reader, hidden_MD, len(self.tokenizer)).cpu())

    def _reading_rows(self, requests: Sequence[AskRequest]) -> list[Sample]:
        """The rows of requests about the same images, which are prepared once."""
        prepare = self._preparation(requests[0].images)
        return [prepare(request, request.answer_start) for request in requests]

    def _drawn(self, codes: Tensor) -> Iterator[Image.Image]:
        """The images of codes (B, ...), decoded one by one: convolutions round differently in batches of other sizes, and the
        same seed has to give the same file."""
        for one in codes.split(1):
            yield from images_of(self.image_tokenizer.decode(one))

    def _square(self, image: Image.Image) -> Tensor:
        """Pixels (3, H, W) of the middle of an image, as those of images to be drawn."""
        return square_pixels(image.convert("RGB"), self.model.config.image_resolution)


def settle(model: nn.Module, device: torch.device) -> None:
    """Move a model that is only to be run to its device: in bfloat16 on a GPU, in float32 elsewhere.

    Parameters alone: the rotary frequencies are a buffer, and rounded ones turn far positions the wrong way.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16 if device.type == "cuda" else torch.float32)
    nn.Module.to(model, device)


def images_of(pixels_B3HW: Tensor) -> list[Image.Image]:
    """Pixels about [-1, 1] to PIL images; values are truncated as the released code does."""
    values = ((pixels_B3HW.float() + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8)
    return [Image.fromarray(np.ascontiguousarray(image)) for image in values.permute(0, 2, 3, 1).cpu().numpy()]
