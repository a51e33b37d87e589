# SPDX-License-Identifier: Apache-2.0
"""The preference loss equals its plain twin in value and gradient, and says what it should of pairs."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unigen.objectives import cross_entropy
from unigen.objectives.preference import MaskedCodes, image_log_probs, preference_loss
from unigen.reference.preference import image_log_probs_slowly, preference_loss_slowly

WIDTH, VOCABULARY, CODES = 8, 40, slice(10, 30)
COUNTS = (3, 1, 5, 2)
"""Masked codes of each of four images."""
PAIRS_P2 = torch.tensor([[2, 0], [1, 3]])
REFERENCE_P2 = torch.tensor([[-20.0, -14.0], [-3.0, -9.0]])


def problem(**changes: Any) -> tuple[Tensor, Tensor, MaskedCodes]:
    """States, output embedding and masked codes, in mixed order."""
    generator = torch.Generator().manual_seed(0)
    images_T = torch.tensor([image for image, count in enumerate(COUNTS) for _ in range(count)])
    images_T = images_T[torch.randperm(len(images_T), generator=generator)]
    targets_T = torch.randint(CODES.start, CODES.stop, images_T.shape, generator=generator)
    hidden_TD = torch.randn(len(images_T), WIDTH, generator=generator, requires_grad=True)
    weight_VD = torch.randn(VOCABULARY, WIDTH, generator=generator, requires_grad=True)
    return hidden_TD, weight_VD, replace(MaskedCodes(targets_T, images_T, len(COUNTS), CODES), **changes)


@pytest.mark.parametrize("image_softmax", ["full", "codes"])
@pytest.mark.parametrize("normalization", ["sum", "mean"])
def test_log_probabilities_equal_the_plain_twin(image_softmax: str, normalization: str) -> None:
    hidden_TD, weight_VD, codes = problem(image_softmax=image_softmax, normalization=normalization)
    found_N = image_log_probs(hidden_TD, weight_VD, codes)
    assert not found_N.requires_grad
    torch.testing.assert_close(found_N, torch.stack(image_log_probs_slowly(hidden_TD, weight_VD, codes)).float())


@pytest.mark.parametrize("image_softmax", ["full", "codes"])
@pytest.mark.parametrize("normalization", ["sum", "mean"])
@pytest.mark.parametrize("sft_scale", [0.0, 0.3])
@pytest.mark.parametrize("logits_per_chunk", [1, 1 << 20])
def test_the_loss_and_its_gradients_equal_the_plain_twin(
    image_softmax: str, normalization: str, sft_scale: float, logits_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the logits of one position alone are held at once."""
    apply = cross_entropy._LinearCrossEntropy.apply
    monkeypatch.setattr(cross_entropy._LinearCrossEntropy, "apply", lambda *words: apply(*words[:4], logits_per_chunk))
    results = []
    for loss_of in (preference_loss, preference_loss_slowly):
        hidden_TD, weight_VD, codes = problem(image_softmax=image_softmax, normalization=normalization)
        settings = {"beta": 0.4, "scale": 0.5, "sft_scale": sft_scale}
        result = loss_of(hidden_TD, weight_VD, codes, PAIRS_P2, REFERENCE_P2, **settings)
        loss = result[0] if isinstance(result, tuple) else result
        loss.backward()
        results.append((loss.detach().float(), hidden_TD.grad, weight_VD.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(gradient is not None and bool(gradient.any()) for gradient in results[0][1:])


def test_rewards_tell_which_image_of_a_pair_the_policy_has_come_to_prefer() -> None:
    hidden_TD, weight_VD, codes = problem()
    policy_P2 = image_log_probs(hidden_TD, weight_VD, codes)[PAIRS_P2]
    reference_P2 = policy_P2 - torch.tensor([[2.0, -1.0], [0.5, 1.5]])
    _, terms = preference_loss(hidden_TD, weight_VD, codes, PAIRS_P2, reference_P2, beta=0.1)
    torch.testing.assert_close(terms.margins_P, torch.tensor([0.3, -0.1]))
    torch.testing.assert_close(terms.losses_P, torch.tensor([math.log1p(math.exp(-0.3)), math.log1p(math.exp(0.1))]))
    torch.testing.assert_close(terms.kl_P, torch.tensor([-0.5, -1.0]))
    torch.testing.assert_close(terms.policy_P2, policy_P2)


def test_a_policy_that_is_the_reference_has_no_margin_and_the_loss_of_a_coin() -> None:
    hidden_TD, weight_VD, codes = problem()
    reference_P2 = image_log_probs(hidden_TD, weight_VD, codes)[PAIRS_P2]
    total, terms = preference_loss(hidden_TD, weight_VD, codes, PAIRS_P2, reference_P2, beta=0.1)
    assert torch.equal(terms.margins_P, torch.zeros(2))
    assert float(total.detach()) == pytest.approx(2 * math.log(2))


def test_a_step_along_the_gradient_widens_the_margin() -> None:
    hidden_TD, weight_VD, codes = problem()
    total, before = preference_loss(hidden_TD, weight_VD, codes, PAIRS_P2, REFERENCE_P2, beta=0.1)
    (slope,) = torch.autograd.grad(total, hidden_TD)
    _, after = preference_loss(hidden_TD - 0.1 * slope, weight_VD, codes, PAIRS_P2, REFERENCE_P2, beta=0.1)
    assert after.losses_P.sum() < before.losses_P.sum()
    assert after.margins_P.sum() > before.margins_P.sum()


def test_no_pairs_make_a_loss_of_zero_with_a_gradient() -> None:
    """For ranks that have fewer batches than others."""
    hidden_TD, weight_VD = torch.zeros(0, WIDTH, requires_grad=True), torch.ones(VOCABULARY, WIDTH, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.long)
    codes = MaskedCodes(nothing, nothing, 0, CODES)
    total, _ = preference_loss(hidden_TD, weight_VD, codes, nothing.view(0, 2), torch.zeros(0, 2), beta=0.1)
    total.backward()
    assert float(total.detach()) == 0.0
    assert weight_VD.grad is not None
    assert not weight_VD.grad.any()
