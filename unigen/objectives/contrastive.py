# SPDX-License-Identifier: Apache-2.0
"""The sigmoid loss of language-image pre-training (SigLIP, arXiv 2303.15343).

Shapes: B images and their B texts, D features.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def sigmoid_loss(
    image_features_BD: Tensor,
    text_features_BD: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    matches_BB: Tensor | None = None,
) -> Tensor:
    """Per image (B,): the summed binary losses of "does this text describe this image" over all texts of the batch.

    Features are normalised here; `logit_scale` is the logarithm of the scale, as SigLIP stores it. `matches_BB` (image,
    text) marks further true pairs, such as equal captions in one batch; without it only the diagonal is true.
    """
    image_BD, text_BD = F.normalize(image_features_BD, dim=-1), F.normalize(text_features_BD, dim=-1)
    logits_BB = image_BD @ text_BD.T * logit_scale.exp() + logit_bias
    if matches_BB is None:
        matches_BB = torch.eye(logits_BB.shape[0], dtype=torch.bool, device=logits_BB.device)
    signs_BB = torch.where(matches_BB, 1.0, -1.0)
    return -F.logsigmoid(signs_BB * logits_BB).sum(1)
