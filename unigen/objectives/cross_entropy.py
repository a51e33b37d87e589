# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy straight from hidden states, without ever holding the whole (positions x vocabulary) matrix of logits.

Legend: N positions, D width, V vocabulary, C positions of one chunk.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LOGITS_PER_CHUNK = 1 << 26
"""Logits held at once: 256 MiB in float32."""


def linear_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor, logits_per_chunk: int = LOGITS_PER_CHUNK
) -> tuple[Tensor, Tensor]:
    """Weighted sum of -log softmax(hidden @ weight.T)[target], and the loss of each position.

    The gradients of a chunk are taken while its logits are at hand, so the head runs once forward and once backward.

    Args:
        hidden_ND: states at supervised positions, any floating dtype.
        weight_VD: output embedding.
        targets_N: class of each position, in [0, V).
        weights_N: factor of each position in the sum, float32.
    Returns:
        the sum (a float32 scalar with gradient) and the losses (N,) in float32, without gradient.
    """
    total, losses_N = _LinearCrossEntropy.apply(hidden_ND, weight_VD, targets_N, weights_N, logits_per_chunk)
    return total, losses_N.detach()


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        weights_N: Tensor,
        logits_per_chunk: int,
    ) -> tuple[Tensor, Tensor]:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        hidden_grad_ND = torch.empty_like(hidden_ND) if needs_hidden else None
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None
        losses_N = hidden_ND.new_empty(hidden_ND.shape[0], dtype=torch.float32)
        size = max(1, logits_per_chunk // weight_VD.shape[0])
        for start in range(0, hidden_ND.shape[0], size):
            chunk = slice(start, start + size)
            hidden_CD, targets_C = hidden_ND[chunk], targets_N[chunk]
            logits_CV = F.linear(hidden_CD, weight_VD).float()
            losses_N[chunk] = F.cross_entropy(logits_CV, targets_C, reduction="none")
            if hidden_grad_ND is None and weight_grad_VD is None:
                continue
            gradient_CV = torch.softmax(logits_CV, dim=-1)
            gradient_CV[torch.arange(len(targets_C), device=targets_C.device), targets_C] -= 1.0
            gradient_CV = (gradient_CV * weights_N[chunk, None]).to(weight_VD.dtype)
            if hidden_grad_ND is not None:
                hidden_grad_ND[chunk] = gradient_CV @ weight_VD
            if weight_grad_VD is not None:
                weight_grad_VD += gradient_CV.T @ hidden_CD
        ctx.save_for_backward(hidden_grad_ND, None if weight_grad_VD is None else weight_grad_VD.to(weight_VD.dtype))
        ctx.mark_non_differentiable(losses_N)
        return (losses_N * weights_N).sum(), losses_N

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _losses: Tensor) -> tuple[Tensor | None, ...]:
        # In place: the buffers are ours, and a second one of the vocabulary's size would cost a gigabyte at 1.5B.
        grads = (None if grad is None else grad.mul_(gradient.to(grad.dtype)) for grad in ctx.saved_tensors)
        return (*grads, None, None, None)
