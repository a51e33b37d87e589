# SPDX-License-Identifier: Apache-2.0
"""Preference optimisation written plainly: whole logits, one pair after another, gradients by autograd alone.

Legend: T masked positions, N images, P pairs, D width, V vocabulary.
"""

import torch
from torch import Tensor

from unigen.objectives.preference import MaskedCodes


def image_log_probs_slowly(hidden_TD: Tensor, output_embedding_VD: Tensor, codes: MaskedCodes) -> list[Tensor]:
    """The log-probability of each image, with gradient: what `objectives.preference.image_log_probs` must give."""
    terms: list[list[Tensor]] = [[] for _ in range(codes.num_images)]
    for hidden_D, target, image in zip(hidden_TD, codes.targets_T.tolist(), codes.images_T.tolist(), strict=True):
        logits_V = (output_embedding_VD @ hidden_D).double()
        if codes.image_softmax == "codes":
            logits_V, target = logits_V[codes.code_rows], target - codes.code_rows.start
        terms[image].append(logits_V[target] - logits_V.exp().sum().log())
    sums = [torch.stack(values).sum() for values in terms]
    return (
        sums if codes.normalization == "sum" else [one / len(values) for one, values in zip(sums, terms, strict=True)]
    )


def preference_loss_slowly(
    hidden_TD: Tensor,
    output_embedding_VD: Tensor,
    codes: MaskedCodes,
    pairs_P2: Tensor,
    reference_P2: Tensor,
    *,
    beta: float,
    scale: float = 1.0,
    sft_scale: float = 0.0,
) -> Tensor:
    """The scalar of `objectives.preference.preference_loss`, with gradient."""
    log_probs = image_log_probs_slowly(hidden_TD, output_embedding_VD, codes)
    total = torch.zeros((), dtype=torch.float64)
    for (chosen, rejected), (by_chosen, by_rejected) in zip(pairs_P2.tolist(), reference_P2.tolist(), strict=True):
        margin = beta * ((log_probs[chosen] - by_chosen) - (log_probs[rejected] - by_rejected))
        total = total + scale * (1 + (-margin).exp()).log()
        count = 1 if codes.normalization == "sum" else int((codes.images_T == chosen).sum())
        total = total - sft_scale * log_probs[chosen] * count
    return total
