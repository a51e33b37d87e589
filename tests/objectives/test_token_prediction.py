# SPDX-License-Identifier: Apache-2.0
"""Losses of text and of image codes over one vocabulary."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.objectives.token_prediction import token_prediction_loss

D, V = 8, 40
CODES = slice(24, 39)
TARGETS_T = torch.tensor([3, 24, 38, 39, 30, 0])  # 39 is the mask token: no code


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_TD = torch.randn(len(TARGETS_T), D, generator=generator).requires_grad_()
    return hidden_TD, torch.randn(V, D, generator=generator).requires_grad_(), torch.rand(len(TARGETS_T))


def test_the_full_softmax_is_over_the_whole_vocabulary() -> None:
    hidden_TD, embedding_VD, weights_T = inputs()
    total, losses_T = token_prediction_loss(hidden_TD, embedding_VD, TARGETS_T, weights_T, CODES)
    expected_T = F.cross_entropy(hidden_TD @ embedding_VD.T, TARGETS_T, reduction="none")
    torch.testing.assert_close(losses_T, expected_T.detach())
    torch.testing.assert_close(total, (expected_T * weights_T).sum())


def test_the_softmax_of_codes_is_over_the_codes_alone_and_of_words_over_all() -> None:
    hidden_TD, embedding_VD, weights_T = inputs()
    total, losses_T = token_prediction_loss(hidden_TD, embedding_VD, TARGETS_T, weights_T, CODES, "codes")
    logits_TV = hidden_TD @ embedding_VD.T
    expected = []
    for place, target in enumerate(TARGETS_T.tolist()):
        rows = range(CODES.start, CODES.stop) if CODES.start <= target < CODES.stop else range(V)
        chosen = logits_TV[place, list(rows)]
        expected.append(chosen.logsumexp(0) - logits_TV[place, target])
    expected_T = torch.stack(expected)
    torch.testing.assert_close(losses_T, expected_T.detach())
    torch.testing.assert_close(total, (expected_T * weights_T).sum())
    found = torch.autograd.grad(total, (hidden_TD, embedding_VD))
    wanted = torch.autograd.grad((expected_T * weights_T).sum(), (hidden_TD, embedding_VD))
    torch.testing.assert_close(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1])


@pytest.mark.parametrize("image_softmax", ["full", "codes"])
def test_a_batch_without_targets_counts_for_nothing(image_softmax: str) -> None:
    hidden_TD, embedding_VD, _ = inputs()
    nothing = torch.empty(0, dtype=torch.long)
    total, losses_T = token_prediction_loss(
        hidden_TD[:0],
        embedding_VD,
        nothing,
        torch.empty(0),
        CODES,
        image_softmax,  # type: ignore[arg-type]
    )
    total.backward()
    assert float(total.detach()) == 0.0
    assert losses_T.numel() == 0
