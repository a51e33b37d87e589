# SPDX-License-Identifier: Apache-2.0
"""Models that compute in the dtype of their weights, whatever autocast is around them."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


def round_frozen(module: nn.Module) -> None:
    """Keep what is not trained in bfloat16: it takes half the memory, and autocast has not to round it at every use."""
    for parameter in module.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Autocast switched off on `device`; the meta device, on which sizes are measured, has none to switch."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
