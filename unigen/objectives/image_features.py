# SPDX-License-Identifier: Apache-2.0
"""How far images are from each other by what a network sees in them.

Legend: B images, D features.
"""

from torch import Tensor
from torch.nn import functional as F

from unigen.objectives.flow_matching import at_least_float32


def feature_distances(found_BD: Tensor, wanted_BD: Tensor) -> Tensor:
    """1 - cosine (B,), at least in float32: 0 where features point the same way, 2 where they point apart."""
    return 1 - F.cosine_similarity(at_least_float32(found_BD), at_least_float32(wanted_BD), dim=-1)
