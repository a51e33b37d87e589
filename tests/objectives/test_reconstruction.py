# SPDX-License-Identifier: Apache-2.0
"""Auto-encoder losses against their plain definitions; every one is one value per image."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from unigen.objectives import reconstruction as losses


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def code_distribution(latents: torch.Tensor, inverse_temperature: float) -> torch.Tensor:
    """The paper's softmax over all codes, written out: (B, positions, 2^C)."""
    codebook = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=latents.shape[1])))
    positions = latents.flatten(2).transpose(1, 2)
    squared_distance = (positions[:, :, None] - codebook).square().sum(-1)
    return torch.softmax(-inverse_temperature * squared_distance, dim=-1)


@pytest.mark.parametrize("num_bits", [1, 4, 5])
def test_entropies_equal_the_softmax_over_the_whole_codebook(num_bits: int) -> None:
    latents = noise(3, num_bits, 2, 4)
    probabilities = code_distribution(latents, inverse_temperature=0.7)
    per_image = torch.special.entr(probabilities).sum(-1).mean(1)
    torch.testing.assert_close(losses.sample_entropy(latents, 0.7), per_image, rtol=1e-5, atol=1e-5)
    overall = torch.special.entr(probabilities.flatten(0, 1).mean(0)).sum()
    torch.testing.assert_close(losses.codebook_entropy(latents, 0.7), overall, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses.entropy_loss(latents, 0.7), per_image - overall, rtol=1e-5, atol=1e-5)


def test_codebook_entropy_is_full_for_all_codes_and_none_for_one_code() -> None:
    codes = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4))).T.reshape(1, 4, 4, 4)
    assert losses.codebook_entropy(codes, 100.0).item() == pytest.approx(4 * math.log(2), rel=1e-5)
    assert losses.codebook_entropy(codes[..., :1, :1].expand_as(codes), 100.0).item() == pytest.approx(0, abs=1e-5)


def test_entropy_of_very_sure_latents_has_a_finite_gradient() -> None:
    latents = (noise(2, 4, 2, 2) * 1e4).requires_grad_()
    losses.entropy_loss(latents, 100.0).sum().backward()
    assert latents.grad is not None
    assert torch.isfinite(latents.grad).all()


def test_commitment_pulls_the_latents_and_not_the_signs() -> None:
    latents = torch.tensor([0.5, -2.0]).reshape(1, 2, 1, 1).requires_grad_()
    signs = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1).requires_grad_()
    loss = losses.commitment_loss(latents, signs)
    assert loss.tolist() == pytest.approx([(0.25 + 1.0) / 2])
    loss.sum().backward()
    assert signs.grad is None
    assert latents.grad is not None
    assert latents.grad.flatten().tolist() == pytest.approx([-0.5, -1.0])


def test_reconstruction_errors_do_not_mix_images() -> None:
    a, b = noise(3, 3, 4, 5), noise(3, 3, 4, 5, seed=1)
    for loss, definition in ((losses.absolute_error, F.l1_loss), (losses.squared_error, F.mse_loss)):
        torch.testing.assert_close(loss(a, b), torch.stack([definition(a[i], b[i]) for i in range(3)]))


def test_psnr_counts_from_the_range_of_two_and_clamps() -> None:
    a = torch.zeros(3, 3, 8, 8)
    b = torch.stack([torch.full((3, 8, 8), value) for value in (0.2, 1.0, 5.0)])
    assert losses.psnr(a, b).tolist() == pytest.approx([20.0, 10 * math.log10(4), 10 * math.log10(4)], abs=1e-4)
    assert losses.psnr(a, a).tolist() == pytest.approx([100.0] * 3)


def test_perceptual_loss_is_zero_for_equal_images_and_trains_only_the_prediction() -> None:
    convolution = torch.nn.Conv2d(3, 4, 3)

    def extract(images: torch.Tensor) -> list[torch.Tensor]:
        first = convolution(images)
        return [first, F.avg_pool2d(first, 2)]

    predicted, target = noise(2, 3, 8, 8).requires_grad_(), noise(2, 3, 8, 8, seed=1).requires_grad_()
    assert losses.perceptual_loss(target, target, extract).abs().max() == 0
    loss = losses.perceptual_loss(predicted, target, extract)
    assert loss.shape == (2,)
    assert (loss > 0).all()
    loss.sum().backward()
    assert predicted.grad is not None
    assert target.grad is None


def test_hinge_losses_stop_at_the_margin() -> None:
    sure, unsure = torch.full((2, 1, 3, 3), 2.0), torch.zeros(2, 1, 3, 3)
    assert losses.discriminator_hinge_loss(sure, -sure).tolist() == [0.0, 0.0]
    assert losses.discriminator_hinge_loss(unsure, unsure).tolist() == [1.0, 1.0]
    assert losses.generator_hinge_loss(sure).tolist() == [-2.0, -2.0]


def test_the_divergence_from_the_standard_normal_is_torchs_own() -> None:
    mean, log_variance = noise(3, 4, 2, 2), noise(3, 4, 2, 2, seed=1)
    normal, standard = (
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()),
        torch.distributions.Normal(0.0, 1.0),
    )
    expected = torch.distributions.kl_divergence(normal, standard).flatten(1).mean(1)
    torch.testing.assert_close(losses.divergence_from_normal(mean, log_variance), expected)
