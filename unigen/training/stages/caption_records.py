# SPDX-License-Identifier: Apache-2.0
"""What a policy that describes images is asked, and what it wrote, as rows of a forward pass.

Legend: B rows, L positions, P prompt tokens, T tokens of all captions, K image tokens, D width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.images import square
from unigen.data.sample import RawSample
from unigen.sequence.templates.uae import UaeTemplate
from unigen.training.stages.policy import PromptSample

RopeIndex = Callable[..., tuple[Tensor, Tensor]]
"""`get_rope_index` of transformers' Qwen2_5_VLModel."""


@dataclass(frozen=True)
class ImageToDescribe:
    """An image, and the question for its caption."""

    image: Image.Image
    """Square, in the size in which its caption is drawn: the policy sees what the reward compares with."""
    inputs: Mapping[str, Tensor]
    """Of one row, as the processor gives them: `input_ids`, `attention_mask`, `mm_token_type_ids`, `pixel_values`,
    `image_grid_thw`."""


@dataclass(frozen=True)
class DescriptionPreparer:
    """Makes them of records, in the loader's workers."""

    template: UaeTemplate
    processor: Any
    request: str
    resolution: int

    def __call__(self, raw: RawSample, draws: Draws) -> PromptSample:
        if not raw.images:
            raise SampleRefused("missing_image", "a record without an image cannot be described")
        image = square(raw.images[0], self.resolution)
        words = self.template.question([], self.request, 1)
        inputs = self.processor(text=[words], images=[image], return_tensors="pt")
        return PromptSample(raw.key, draws.visit, ImageToDescribe(image, dict(inputs)))


@dataclass(frozen=True)
class WrittenCaption:
    """A caption of an image."""

    inputs: Mapping[str, Tensor]
    """See `ImageToDescribe`."""
    features_KD: Tensor
    """What the vision tower made of the image. It is frozen, so this stays true."""
    token_ids: tuple[int, ...]
    """With the mark of its end, if it came to one."""


@dataclass(frozen=True)
class CaptionRecord:
    """A caption, and how probable each of its tokens was when it was written."""

    written: WrittenCaption
    log_probs_T: Tensor
    reference_log_probs_T: Tensor | None
    """By the model without its adapter; None where nothing is compared with it."""


def join_prompts(prompts: Sequence[Mapping[str, Tensor]], padding_id: int) -> dict[str, Tensor]:
    """Questions of any length as one batch to go on from: padding stands before them."""
    padding = {"input_ids": padding_id, "attention_mask": 0, "mm_token_type_ids": 0}
    found = {
        name: pad_sequence(
            [one[name][0] for one in prompts], batch_first=True, padding_value=value, padding_side="left"
        )
        for name, value in padding.items()
    }
    return found | {name: torch.cat([one[name] for one in prompts]) for name in ("pixel_values", "image_grid_thw")}


def caption_rows(captions: Sequence[WrittenCaption], padding_id: int, rope_index: RopeIndex) -> dict[str, Tensor]:
    """Questions with their captions as rows, padding behind them; where the states stand that write each token, and which."""
    lengths = [one.inputs["input_ids"].shape[1] for one in captions]
    rows = [
        torch.cat([one.inputs["input_ids"][0], torch.tensor(one.token_ids[:-1], dtype=torch.long)]) for one in captions
    ]
    ids_BL = pad_sequence(rows, batch_first=True, padding_value=padding_id)
    is_text_BL = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    is_image_BL = torch.zeros_like(ids_BL)
    for row, (one, length) in enumerate(zip(captions, lengths, strict=True)):
        is_image_BL[row, :length] = one.inputs["mm_token_type_ids"][0]
    positions_3BL, _ = rope_index(
        ids_BL,
        mm_token_type_ids=is_image_BL,
        image_grid_thw=torch.cat([one.inputs["image_grid_thw"] for one in captions]),
        attention_mask=is_text_BL,
    )
    places = [
        torch.arange(len(one.token_ids)) + row * ids_BL.shape[1] + length - 1
        for row, (one, length) in enumerate(zip(captions, lengths, strict=True))
    ]
    return {
        "ids_BL": ids_BL,
        "is_text_BL": is_text_BL,
        "is_image_BL": is_image_BL.bool(),
        "positions_B3L": positions_3BL.transpose(0, 1),
        "features_KD": torch.cat([one.features_KD for one in captions]),
        "places_T": torch.cat(places),
        "targets_T": torch.tensor([token for one in captions for token in one.token_ids]),
    }
