# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of written tokens against the whole matrix of logits."""

import pytest
import torch
from torch import Tensor

from unigen.objectives.token_policy import token_log_probs


def inputs(tokens: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden_TD, weight_VD = (torch.randn(size, 6, generator=generator) for size in (tokens, 11))
    return (
        hidden_TD.requires_grad_(),
        weight_VD.requires_grad_(),
        torch.randint(0, 11, (tokens,), generator=generator),
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
@pytest.mark.parametrize("logits_per_chunk", [1, 11 * 4, 11 * 100])
def test_they_and_their_gradients_are_those_of_the_whole_matrix(temperature: float, logits_per_chunk: int) -> None:
    hidden_TD, weight_VD, targets_T = inputs(9)
    factors_T = torch.linspace(-1, 2, 9)
    found_T, entropies_T = token_log_probs(hidden_TD, weight_VD, targets_T, temperature, logits_per_chunk)
    (found_T.exp() * factors_T).sum().backward()  # not linear in them, as a clipped ratio is not
    gradients = hidden_TD.grad, weight_VD.grad
    distribution = torch.distributions.Categorical(logits=hidden_TD @ weight_VD.T / temperature)
    expected_T = distribution.log_prob(targets_T)
    torch.testing.assert_close(found_T, expected_T)
    torch.testing.assert_close(entropies_T, distribution.entropy().detach())
    assert not entropies_T.requires_grad
    plain = torch.autograd.grad((expected_T.exp() * factors_T).sum(), (hidden_TD, weight_VD))
    torch.testing.assert_close(gradients, plain)


def test_no_tokens_lead_to_all_weights_with_a_gradient_of_zero() -> None:
    hidden_TD, weight_VD, targets_T = inputs(0)
    found_T, entropies_T = token_log_probs(hidden_TD, weight_VD, targets_T)
    found_T.sum().backward()
    assert len(found_T) == len(entropies_T) == 0
    assert weight_VD.grad is not None
    assert not weight_VD.grad.any()
    assert hidden_TD.grad is not None
