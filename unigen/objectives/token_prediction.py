# SPDX-License-Identifier: Apache-2.0
"""Losses of predicted tokens: next tokens of text, masked codes of images (arXiv 2505.14682, equation 1).

Legend: T supervised positions, D width, V vocabulary.
"""

from typing import Literal

import torch
from torch import Tensor

from unigen.objectives.cross_entropy import linear_cross_entropy
from unigen.objectives.loss_kernels import LossKernel


def token_prediction_loss(
    hidden_TD: Tensor,
    output_embedding_VD: Tensor,
    targets_T: Tensor,
    weights_T: Tensor,
    code_rows: slice,
    image_softmax: Literal["full", "codes"] = "full",
    kernel: LossKernel = linear_cross_entropy,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the cross-entropies at supervised positions, and the loss of each.

    Args:
        code_rows: rows of the output embedding that are image codes.
        image_softmax: `full` normalises image targets over the whole vocabulary, `codes` over `code_rows` alone.
    Returns:
        a float32 scalar with gradient and the losses (T,) without.
    """
    if image_softmax == "full":
        return kernel(hidden_TD, output_embedding_VD, targets_T, weights_T)
    is_code_T = (targets_T >= code_rows.start) & (targets_T < code_rows.stop)
    codes, words = is_code_T.nonzero()[:, 0], (~is_code_T).nonzero()[:, 0]
    code_total, code_losses = kernel(
        hidden_TD[codes], output_embedding_VD[code_rows], targets_T[codes] - code_rows.start, weights_T[codes]
    )
    word_total, word_losses = kernel(hidden_TD[words], output_embedding_VD, targets_T[words], weights_T[words])
    losses_T = torch.zeros_like(weights_T).index_copy(0, codes, code_losses).index_copy(0, words, word_losses)
    return code_total + word_total, losses_T
