# SPDX-License-Identifier: Apache-2.0
"""Images and their captions matched as SigLIP (arXiv 2303.15343) or CLIP does: what the stages that train on both share.

Legend: B images of a forward pass, T captions that all ranks have in theirs, N positions, C channels, D features, L words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, SiglipTextModel

from unigen.data.batch import Batch
from unigen.errors import ConfigError
from unigen.objectives.contrastive import sigmoid_loss
from unigen.training.rank_rows import of_all_ranks
from unigen.training.stages.stage import are_counted

LOGIT_SCALE, LOGIT_BIAS = math.log(10), -10.0
"""SigLIP's own start (section 3.2): from zero, the bias alone would take thousands of steps."""


@dataclass(frozen=True)
class CaptionWords:
    """Makes words (B, L) of captions as SigLIP reads them: padded to its full length, of which it pools the last position."""

    tokenizer: PreTrainedTokenizerBase
    length: int

    def __call__(self, captions: Sequence[str]) -> Tensor:
        options = {"padding": "max_length", "max_length": self.length, "truncation": True, "return_tensors": "pt"}
        return self.tokenizer(list(captions), **options)["input_ids"]


def matching_losses(image_BD: Tensor, text_BD: Tensor, batch: Batch, logit_scale: Tensor, logit_bias: Tensor) -> Tensor:
    """Losses (B,) of every image against the captions of all ranks; equal captions match, empty batches have none."""
    counted_B = are_counted(batch).to(text_BD.device)
    said = [caption for caption, key in zip(batch.captions, batch.keys, strict=True) if key]
    text_TD, captions = of_all_ranks(text_BD[counted_B], said)
    same_BT = [[own == other for other in captions] for own in batch.captions]
    matches_BT = torch.tensor(same_BT, dtype=torch.bool, device=text_BD.device)
    return sigmoid_loss(image_BD, text_TD, logit_scale, logit_bias, matches_BT)


def softmax_losses(image_BD: Tensor, text_BD: Tensor, batch: Batch, logit_scale: Tensor) -> Tensor:
    """CLIP's loss over the images and captions of all ranks, as open_clip computes it: the same number (B,) for every image.

    Raises:
        ConfigError: open_clip is not installed.
    """
    try:
        from open_clip.loss import ClipLoss  # no other objective needs it
    except ImportError as error:
        raise ConfigError("vision_stage.loss=softmax needs open_clip; run: bash scripts/setup.sh uae") from error
    counted_B = are_counted(batch).to(text_BD.device)
    keys = [key for key in batch.keys if key]
    image_TD, _ = of_all_ranks(F.normalize(image_BD[counted_B], dim=-1), keys)
    text_TD, _ = of_all_ranks(F.normalize(text_BD[counted_B], dim=-1), keys)
    loss: Tensor = ClipLoss()(image_TD, text_TD, logit_scale.exp())
    return loss.expand(len(image_BD))


class CaptionContrast(nn.Module):
    """Matches the mean of an image's quantised features with its caption. A part of training: no tokenizer is saved with it.

    Source: Wu et al., arXiv 2409.04429, section 3.1: features that are quantised for reconstruction alone say little.
    """

    def __init__(self, text_model: SiglipTextModel, feature_size: int) -> None:
        super().__init__()
        self.text_model = text_model
        self.projection = nn.Linear(feature_size, text_model.head.out_features)
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE))
        self.logit_bias = nn.Parameter(torch.tensor(LOGIT_BIAS))

    def forward(self, quantised_BNC: Tensor, words_BL: Tensor, batch: Batch) -> Tensor:
        """Losses (B,)."""
        image_BD = self.projection(quantised_BNC.mean(1))
        text_BD = self.text_model(input_ids=words_BL).pooler_output
        return matching_losses(image_BD, text_BD, batch, self.logit_scale, self.logit_bias)
