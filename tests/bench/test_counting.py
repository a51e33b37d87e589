# SPDX-License-Identifier: Apache-2.0
"""Operations and live bytes are what they are by hand."""

import torch

from unigen.bench.counting import LiveBytes, count_flops, peak_bytes

MEBIBYTE = 2**20
CPU = torch.device("cpu")


def mebibyte() -> torch.Tensor:
    return torch.zeros(MEBIBYTE // 4)


def test_a_matrix_product_is_two_operations_a_multiplication() -> None:
    left, right = torch.randn(3, 5), torch.randn(5, 7)
    product, flops = count_flops(lambda: left @ right)
    assert flops == 2 * 3 * 5 * 7
    assert torch.equal(product, left @ right)


def test_the_peak_counts_what_is_held_at_once() -> None:
    def one_after_the_other() -> None:
        for _ in range(5):
            mebibyte().add_(1)

    def together() -> None:
        kept = [mebibyte() for _ in range(5)]
        del kept

    assert peak_bytes(together, CPU) == 5 * MEBIBYTE
    assert peak_bytes(one_after_the_other, CPU) == MEBIBYTE


def test_views_and_tensors_from_before_cost_nothing() -> None:
    before = mebibyte()
    with LiveBytes() as live:
        before.add_(1)
        view = before.view(2, -1)[1]
    assert live.peak == 0
    assert view.shape == (MEBIBYTE // 8,)


def test_what_a_backward_pass_keeps_is_counted() -> None:
    weight = torch.ones(MEBIBYTE // 4, requires_grad=True)

    def run() -> None:
        weight.exp().exp().sum().backward()
        weight.grad = None

    # Two results of exp, which it needs for its gradient, and the gradients on the way.
    assert 3 * MEBIBYTE <= peak_bytes(run, CPU) <= 4 * MEBIBYTE + 100
