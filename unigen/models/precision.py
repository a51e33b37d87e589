# SPDX-License-Identifier: Apache-2.0
"""Models that compute in the dtype of their weights, whatever autocast is around them."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Autocast switched off on `device`; the meta device, on which sizes are measured, has none to switch."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
