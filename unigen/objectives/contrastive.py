# SPDX-License-Identifier: Apache-2.0
"""The sigmoid loss of language-image pre-training (SigLIP, arXiv 2303.15343).

Shapes: B images, T texts, D features.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def sigmoid_loss(
    image_features_BD: Tensor,
    text_features_TD: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    matches_BT: Tensor | None = None,
) -> Tensor:
    """Per image (B,): the summed binary losses of "does this text describe this image" over all texts of the batch.

    Features are normalised here; `logit_scale` is the logarithm of the scale, as SigLIP stores it. `matches_BT` (image,
    text) marks the true pairs, such as equal captions in one batch; without it the diagonal is true.
    """
    image_BD, text_TD = F.normalize(image_features_BD, dim=-1), F.normalize(text_features_TD, dim=-1)
    logits_BT = image_BD @ text_TD.T * logit_scale.exp() + logit_bias
    if matches_BT is None:
        matches_BT = torch.eye(*logits_BT.shape, dtype=torch.bool, device=logits_BT.device)
    signs_BT = torch.where(matches_BT, 1.0, -1.0)
    return -F.logsigmoid(signs_BT * logits_BT).sum(1)
