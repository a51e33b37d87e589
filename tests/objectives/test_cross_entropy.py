# SPDX-License-Identifier: Apache-2.0
"""The chunked cross-entropy equals the plain one, with its gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.objectives.cross_entropy import linear_cross_entropy

N, D, V = 23, 8, 50


def inputs(count: int = N) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(count, D, generator=generator).requires_grad_()
    weight_VD = torch.randn(V, D, generator=generator).requires_grad_()
    targets_N = torch.randint(V, (count,), generator=generator)
    return hidden_ND, weight_VD, targets_N, torch.rand(count, generator=generator)


def plain(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor) -> tuple[Tensor, Tensor]:
    losses_N = F.cross_entropy(hidden_ND @ weight_VD.T, targets_N, reduction="none")
    return (losses_N * weights_N).sum(), losses_N


@pytest.mark.parametrize("positions_per_chunk", [1, 5, N, 100])
def test_sum_losses_and_gradients_equal_the_plain_ones(positions_per_chunk: int) -> None:
    hidden_ND, weight_VD, targets_N, weights_N = inputs()
    expected, expected_N = plain(hidden_ND, weight_VD, targets_N, weights_N)
    (3 * expected).backward()
    expected_gradients = hidden_ND.grad, weight_VD.grad
    hidden_ND.grad = weight_VD.grad = None
    total, losses_N = linear_cross_entropy(hidden_ND, weight_VD, targets_N, weights_N, positions_per_chunk * V)
    (3 * total).backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(losses_N, expected_N.detach())
    torch.testing.assert_close(hidden_ND.grad, expected_gradients[0])
    torch.testing.assert_close(weight_VD.grad, expected_gradients[1])
    assert not losses_N.requires_grad


def test_a_position_of_weight_zero_moves_nothing() -> None:
    hidden_ND, weight_VD, targets_N, weights_N = inputs()
    weights_N[4] = 0
    linear_cross_entropy(hidden_ND, weight_VD, targets_N, weights_N)[0].backward()
    assert hidden_ND.grad is not None
    assert not hidden_ND.grad[4].any()
    assert hidden_ND.grad[5].any()


def test_no_positions_give_a_zero_that_can_be_differentiated() -> None:
    hidden_ND, weight_VD, targets_N, weights_N = inputs(0)
    total, losses_N = linear_cross_entropy(hidden_ND, weight_VD, targets_N, weights_N)
    total.backward()
    assert float(total.detach()) == 0.0
    assert losses_N.shape == (0,)
    assert weight_VD.grad is not None
    assert not weight_VD.grad.any()


@pytest.mark.parametrize("frozen", ["hidden", "weight", "both"])
def test_frozen_inputs_get_no_gradient(frozen: str) -> None:
    hidden_ND, weight_VD, targets_N, weights_N = inputs()
    expected = plain(hidden_ND, weight_VD, targets_N, weights_N)[0]
    expected.backward()
    expected_gradients = hidden_ND.grad, weight_VD.grad
    hidden_ND, weight_VD, targets_N, weights_N = inputs()
    hidden_ND.requires_grad_(frozen == "weight")
    weight_VD.requires_grad_(frozen == "hidden")
    total, _ = linear_cross_entropy(hidden_ND, weight_VD, targets_N, weights_N)
    torch.testing.assert_close(total.detach(), expected.detach())
    if frozen == "both":
        assert not total.requires_grad
        return
    total.backward()
    for found, wanted, is_frozen in (
        (hidden_ND.grad, expected_gradients[0], frozen == "hidden"),
        (weight_VD.grad, expected_gradients[1], frozen == "weight"),
    ):
        assert (found is None) == is_frozen
        if not is_frozen:
            torch.testing.assert_close(found, wanted)


def test_bfloat16_states_give_float32_losses_near_the_exact_ones() -> None:
    hidden_ND, weight_VD, targets_N, weights_N = inputs()
    exact, _ = plain(hidden_ND, weight_VD, targets_N, weights_N)
    total, losses_N = linear_cross_entropy(hidden_ND.bfloat16(), weight_VD.bfloat16(), targets_N, weights_N)
    assert total.dtype == losses_N.dtype == torch.float32
    torch.testing.assert_close(total, exact, rtol=0.02, atol=0.0)


def test_gradients_are_those_of_finite_differences() -> None:
    hidden_ND, weight_VD, targets_N, weights_N = inputs(3)
    (direction_ND,) = torch.randn(1, 3, D, generator=torch.Generator().manual_seed(1))
    linear_cross_entropy(hidden_ND, weight_VD, targets_N, weights_N)[0].backward()
    assert hidden_ND.grad is not None
    step = 1e-2
    sides = [
        linear_cross_entropy(hidden_ND.detach() + sign * step * direction_ND, weight_VD.detach(), targets_N, weights_N)[
            0
        ]
        for sign in (1, -1)
    ]
    slope = (sides[0] - sides[1]) / (2 * step)
    torch.testing.assert_close((hidden_ND.grad * direction_ND).sum(), slope, rtol=1e-3, atol=1e-4)
