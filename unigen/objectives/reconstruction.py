# SPDX-License-Identifier: Apache-2.0
"""Losses and measures of an image auto-encoder with lookup-free (MAGVIT-v2, arXiv 2310.05737) or residual quantisation.

Every function gives one value per image (B,), so that a loop can sum and divide by counts over all ranks.

Shapes: B images, C latent channels = bits, h x w latent positions, N = B * h * w, 3 x H x W pixels in [-1, 1]; of residual
quantisation P depths.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

PIXEL_RANGE = 2.0  # from -1 to 1
SMALLEST_ERROR = 4e-10  # makes the PSNR of an exact copy 100 dB instead of infinite
NORM_EPSILON = 1e-10


def absolute_error(predicted_B3HW: Tensor, target_B3HW: Tensor) -> Tensor:
    """Mean absolute difference of each image (B,)."""
    return (predicted_B3HW - target_B3HW).abs().flatten(1).mean(1)


def squared_error(predicted_B3HW: Tensor, target_B3HW: Tensor) -> Tensor:
    """Mean squared difference of each image (B,)."""
    return (predicted_B3HW - target_B3HW).square().flatten(1).mean(1)


def psnr(a_B3HW: Tensor, b_B3HW: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image (B,) in dB, both clamped to [-1, 1]; an exact copy gives 100."""
    error_B = squared_error(a_B3HW.float().clamp(-1, 1), b_B3HW.float().clamp(-1, 1))
    return 10 * torch.log10(PIXEL_RANGE**2 / error_B.clamp_min(SMALLEST_ERROR))


def commitment_loss(latents_BChw: Tensor, quantised_BChw: Tensor) -> Tensor:
    """Mean squared distance (B,) of the latents from their own signs, which are taken as constants."""
    return squared_error(latents_BChw, quantised_BChw.detach())


def residual_commitment_loss(features_BNC: Tensor, partial_BNPC: Tensor) -> Tensor:
    """Mean squared distance (B,) of the features from their sums of codebook rows up to each depth, taken as constants.

    Source: Lee et al., arXiv 2203.01941, equation 8, with the mean over depths in the place of the sum.
    """
    return squared_error(features_BNC.unsqueeze(2), partial_BNPC.detach())


def residual_codebook_loss(features_BNC: Tensor, partial_BNPC: Tensor) -> Tensor:
    """The same distance (B,) for the codebook to shorten, with the features as constants."""
    return squared_error(features_BNC.detach().unsqueeze(2), partial_BNPC)


def divergence_from_normal(mean_BChw: Tensor, log_variance_BChw: Tensor) -> Tensor:
    """Kullback-Leibler divergence (B,) of normal distributions from the standard one, a mean over the elements of a latent.

    Source: Kingma & Welling, arXiv 1312.6114, appendix B.
    """
    terms_BChw = mean_BChw.square() + log_variance_BChw.exp() - 1 - log_variance_BChw
    return 0.5 * terms_BChw.flatten(1).mean(1)


def sample_entropy(latents_BChw: Tensor, inverse_temperature: float) -> Tensor:
    """Mean entropy (B,) in nats of each position's distribution over the codes: low when every bit is decided.

    The paper's distribution is softmax over the codes c of -inverse_temperature * |z - c|^2. As the codes are all of
    {-1, 1}^C it is a product over bits, P(bit = 1) = sigmoid(4 * inverse_temperature * z), so its entropy is exactly
    the sum of the bits' entropies and no softmax over 2^C codes is needed.
    """
    logits_BChw = 4 * inverse_temperature * latents_BChw.float()
    ones_BChw = torch.sigmoid(logits_BChw)
    # H = softplus(l) - l * sigmoid(l), which has no 0 * log 0 in it
    bit_entropy_BChw = F.softplus(logits_BChw) - logits_BChw * ones_BChw
    return bit_entropy_BChw.sum(1).flatten(1).mean(1)


def codebook_entropy(latents_BChw: Tensor, inverse_temperature: float) -> Tensor:
    """Entropy (scalar, nats, at most C log 2) of the codes' distribution averaged over all positions of the batch.

    Exact, without holding positions x 2^C: the code splits into its upper and its lower bits, and the average of their
    outer products over positions is one matrix product of (2^(C/2), N) with (N, 2^(C/2)).
    """
    logits_NC = 4 * inverse_temperature * latents_BChw.float().transpose(0, 1).flatten(1).T
    half = logits_NC.shape[1] // 2
    upper_NU, lower_NL = _code_probabilities(logits_NC[:, :half]), _code_probabilities(logits_NC[:, half:])
    average_UL = upper_NU.T @ lower_NL / logits_NC.shape[0]
    # The logarithm is bounded, not the probability: a code that no position takes must not make the gradient infinite.
    return -(average_UL * average_UL.clamp_min(torch.finfo(average_UL.dtype).tiny).log()).sum()


def entropy_loss(latents_BChw: Tensor, inverse_temperature: float) -> Tensor:
    """The paper's entropy penalty (B,): each image's sample entropy minus the codebook entropy (equation 6).

    The codebook entropy belongs to the batch, so every image of it carries the same value.
    """
    return sample_entropy(latents_BChw, inverse_temperature) - codebook_entropy(latents_BChw, inverse_temperature)


def perceptual_loss(
    predicted_B3HW: Tensor, target_B3HW: Tensor, extract: Callable[[Tensor], Sequence[Tensor]]
) -> Tensor:
    """Squared distance (B,) of feature maps (B, channels, height, width), summed over the maps that `extract` gives.

    Maps are normalised over channels as in LPIPS (arXiv 1801.03924), with equal weights.
    """
    pairs = zip(extract(predicted_B3HW), extract(target_B3HW.detach()), strict=True)
    return torch.stack([_normalised_distance(predicted, target.detach()) for predicted, target in pairs]).sum(0)


def generator_hinge_loss(fake_logits_B1hw: Tensor) -> Tensor:
    """How little (B,) the discriminator takes the reconstructions for real."""
    return -fake_logits_B1hw.flatten(1).mean(1)


def discriminator_hinge_loss(real_logits_B1hw: Tensor, fake_logits_B1hw: Tensor) -> Tensor:
    """Hinge loss (B,) of a discriminator that wants real logits above 1 and fake ones below -1."""
    real_B = F.relu(1 - real_logits_B1hw).flatten(1).mean(1)
    fake_B = F.relu(1 + fake_logits_B1hw).flatten(1).mean(1)
    return (real_B + fake_B) / 2


def _code_probabilities(logits_NC: Tensor) -> Tensor:
    """Probabilities (N, 2^C) of all values of independent bits with these logits; one row of ones for no bits."""
    probabilities_NK = logits_NC.new_ones(logits_NC.shape[0], 1)
    for logits_N in logits_NC.unbind(1):
        bit_N2 = torch.stack([torch.sigmoid(-logits_N), torch.sigmoid(logits_N)], dim=1)
        probabilities_NK = (probabilities_NK[:, :, None] * bit_N2[:, None, :]).flatten(1)
    return probabilities_NK


def _normalised_distance(a_BChw: Tensor, b_BChw: Tensor) -> Tensor:
    a_BChw, b_BChw = (F.normalize(map_BChw, dim=1, eps=NORM_EPSILON) for map_BChw in (a_BChw, b_BChw))
    return (a_BChw - b_BChw).square().sum(1).flatten(1).mean(1)
