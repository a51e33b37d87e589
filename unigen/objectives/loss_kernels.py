# SPDX-License-Identifier: Apache-2.0
"""Which implementation computes the linear cross-entropy: our own chunks everywhere, or Liger's fused kernels on CUDA.

Legend: N positions, D width, V vocabulary.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from unigen.errors import ConfigError
from unigen.objectives.cross_entropy import linear_cross_entropy

LossKernel = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Called and answering as `linear_cross_entropy` is."""


def find_loss_kernel(name: Literal["chunked", "liger"], device: torch.device) -> LossKernel:
    """The kernel that `training.loss_kernel` names.

    Raises:
        ConfigError: Liger away from CUDA, or without its package.
    """
    if name == "chunked":
        return linear_cross_entropy
    if device.type != "cuda":
        raise ConfigError(f"training.loss_kernel is liger, which runs on CUDA, but this is {device.type}; take chunked")
    try:
        import liger_kernel.transformers.functional  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "training.loss_kernel is liger, but liger-kernel is not installed; run bash scripts/setup.sh liger, or take chunked"
        ) from error
    return liger_cross_entropy


def liger_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor
) -> tuple[Tensor, Tensor]:
    """As `linear_cross_entropy`, by liger-kernel (Hsu et al., arXiv 2410.10989).

    Liger knows weights of classes, not of positions. So it gives the loss of each position, which is weighted here; for this
    it computes the logits again in the backward pass, when the weights reach it as the gradient of each loss.
    """
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    losses_N = liger_fused_linear_cross_entropy(
        hidden_ND, weight_VD, targets_N, reduction="none", accum_dtype=torch.float32
    )
    return (losses_N * weights_N).sum(), losses_N.detach()
