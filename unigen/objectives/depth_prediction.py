# SPDX-License-Identifier: Apache-2.0
"""Loss of image codes that a depth transformer predicts: plain cross-entropy, every depth alike (arXiv 2203.01941, equation 10).

Legend: M image positions, P depths, W width, K codes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.objectives.cross_entropy import linear_cross_entropy
from unigen.objectives.loss_kernels import LossKernel

ALIGNMENT = 8
"""Widths of matrix products are multiples of it, for tensor cores."""


def depth_prediction_loss(
    states_MPW: Tensor,
    output_embedding_KW: Tensor,
    output_bias_K: Tensor,
    codes_MP: Tensor,
    weight: float | Tensor,
    kernel: LossKernel = linear_cross_entropy,
) -> tuple[Tensor, Tensor]:
    """`weight` times the sum of all cross-entropies, with gradient, and the plain sum, without; logits are never whole.

    The bias goes through the kernel as one more column of the output embedding, met by ones in the states.
    """
    states_NW, codes_N = states_MPW.flatten(0, 1), codes_MP.flatten()
    ones_N1 = states_NW.new_ones(states_NW.shape[0], 1)
    states_NW = F.pad(torch.cat([states_NW, ones_N1], dim=1), (0, ALIGNMENT - 1))
    embedding_KW = torch.cat([output_embedding_KW, output_bias_K[:, None]], dim=1)
    embedding_KW = F.pad(embedding_KW, (0, ALIGNMENT - 1)).to(states_NW.dtype)
    weights_N = torch.ones(codes_N.shape[0], device=states_NW.device) * weight
    total, losses_N = kernel(states_NW, embedding_KW, codes_N, weights_N)
    return total, losses_N.sum()
