# SPDX-License-Identifier: Apache-2.0
"""Direct preference optimisation over masked images (Rafailov et al., arXiv 2305.18290; UniGen, arXiv 2505.14682).

The log-probability of an image is the sum (or the mean) over its masked codes of log softmax at the true code.

Legend: T masked positions, N images, P pairs (chosen, rejected), D width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.objectives.token_prediction import token_prediction_loss


@dataclass(frozen=True)
class MaskedCodes:
    """The masked codes of some images, and what counts as their log-probability."""

    targets_T: Tensor
    images_T: Tensor
    """Number of the image that each belongs to."""
    num_images: int
    code_rows: slice
    """Rows of the output embedding that are image codes."""
    image_softmax: Literal["full", "codes"] = "full"
    normalization: Literal["sum", "mean"] = "sum"

    @property
    def shares_T(self) -> Tensor:
        """How much the log-probability of each code counts in that of its image."""
        ones_T = torch.ones_like(self.images_T, dtype=torch.float32)
        if self.normalization == "sum":
            return ones_T
        counts_N = ones_T.new_zeros(self.num_images).index_add(0, self.images_T, ones_T)
        return 1.0 / counts_N[self.images_T]


@dataclass(frozen=True)
class PreferenceTerms:
    """What a step has to say of its pairs: float32, without gradient."""

    losses_P: Tensor
    """-log sigmoid(margin)."""
    margins_P: Tensor
    """Reward of the chosen image less that of the rejected one; a reward is beta times the log-ratio to the reference."""
    policy_P2: Tensor
    kl_P: Tensor
    """log reference - log policy, mean of both images: estimates KL(reference | policy) as far as the images are the
    reference's own drawings; below 0 for some pairs."""
    chosen_loss: Tensor
    """Sum of the masked-token losses of the chosen images."""


@torch.no_grad()
def image_log_probs(hidden_TD: Tensor, output_embedding_VD: Tensor, codes: MaskedCodes) -> Tensor:
    """Log-probabilities of images (N,), float32, without gradient.

    Args:
        hidden_TD: states at the masked positions, any floating dtype.
    """
    return _sum_by_image(-_code_losses(hidden_TD, output_embedding_VD, codes), codes)


def preference_loss(
    hidden_TD: Tensor,
    output_embedding_VD: Tensor,
    codes: MaskedCodes,
    pairs_P2: Tensor,
    reference_P2: Tensor,
    *,
    beta: float,
    scale: float = 1.0,
    sft_scale: float = 0.0,
) -> tuple[Tensor, PreferenceTerms]:
    """scale * sum of -log sigmoid(beta * ((policy - reference)[chosen] - (policy - reference)[rejected]))
    + sft_scale * sum of the masked-token losses of the chosen images.

    The derivatives by the log-probabilities are known once these are: then a weighted sum of the codes' losses has the very
    gradient. So the output layer runs twice, and never holds the logits of all positions.

    Args:
        pairs_P2: numbers of the chosen and the rejected image of each pair.
        reference_P2: their log-probabilities by the reference model.
    Returns:
        a float32 scalar with gradient, and its terms.
    """
    with torch.no_grad():
        losses_T = _code_losses(hidden_TD, output_embedding_VD, codes)
        policy_P2 = _sum_by_image(-losses_T, codes)[pairs_P2]
        ratios_P2 = policy_P2 - reference_P2.float()
        margins_P = beta * (ratios_P2[:, 0] - ratios_P2[:, 1])
        is_chosen_N = losses_T.new_zeros(codes.num_images).index_fill(0, pairs_P2[:, 0], 1.0)
        chosen_loss = (losses_T * is_chosen_N[codes.images_T]).sum()
        terms = PreferenceTerms(-F.logsigmoid(margins_P), margins_P, policy_P2, -ratios_P2.mean(dim=1), chosen_loss)
        slopes_P = beta * torch.sigmoid(-margins_P)  # of the loss by the rejected image's log-probability
        slopes_N = losses_T.new_zeros(codes.num_images)
        slopes_N = slopes_N.index_copy(0, pairs_P2.flatten(), torch.stack([-slopes_P, slopes_P], dim=1).flatten())
        weights_T = -scale * slopes_N[codes.images_T] * codes.shares_T + sft_scale * is_chosen_N[codes.images_T]
        value = scale * terms.losses_P.sum() + sft_scale * chosen_loss
    weighted, _ = token_prediction_loss(
        hidden_TD, output_embedding_VD, codes.targets_T, weights_T, codes.code_rows, codes.image_softmax
    )
    return value + (weighted - weighted.detach()), terms


def _code_losses(hidden_TD: Tensor, output_embedding_VD: Tensor, codes: MaskedCodes) -> Tensor:
    """-log-probability of each masked code (T,)."""
    _, losses_T = token_prediction_loss(
        hidden_TD.detach(),
        output_embedding_VD.detach(),
        codes.targets_T,
        codes.shares_T,
        codes.code_rows,
        codes.image_softmax,
    )
    return losses_T


def _sum_by_image(values_T: Tensor, codes: MaskedCodes) -> Tensor:
    return values_T.new_zeros(codes.num_images).index_add(0, codes.images_T, values_T * codes.shares_T)
