# SPDX-License-Identifier: Apache-2.0
"""Attention document by document equals attention under the dense mask, with its gradients."""

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from unigen.models.attention import attend
from unigen.sequence.visibility import BLOCK_LENGTH, DocumentMasks, Visible

HEADS, KEY_HEADS, SIZE, LENGTH = 4, 2, 8, 20


def packed() -> Visible:
    """Two rows: text and an image that sees itself, then padding; columns open to all rows, then text."""
    documents = torch.tensor([[0] * 6 + [1] * 9 + [-1] * 5, [0] * 13 + [1] * 7])
    blocks, is_open = torch.full_like(documents, -1), torch.zeros_like(documents, dtype=torch.bool)
    blocks[0, 9:15] = 0
    is_open[1, 3:8] = True
    return Visible(documents, blocks, is_open)


def heads(seed: int, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, number, LENGTH, SIZE, generator=generator).requires_grad_()


@pytest.mark.parametrize("scaling", [None, 0.5])
def test_documents_one_by_one_give_what_the_dense_mask_gives(scaling: float | None) -> None:
    visible = packed()
    is_real = visible.documents_RL >= 0
    found = []
    for mask in (visible.dense(), visible.by_document()):
        query, key, value = heads(0, HEADS), heads(1, KEY_HEADS), heads(2, KEY_HEADS)
        out_RLHD, _ = attend(torch.nn.Module(), query, key, value, mask, scaling)
        out_RLHD[is_real].square().sum().backward()
        found.append((out_RLHD[is_real].detach(), query.grad, key.grad, value.grad))
    for dense, by_document in zip(*found, strict=True):
        torch.testing.assert_close(by_document, dense)


def test_padding_is_left_out_and_gives_zeros() -> None:
    visible = packed()
    mask = visible.by_document()
    assert isinstance(mask, DocumentMasks)
    out_RLHD, _ = attend(torch.nn.Module(), heads(0, HEADS), heads(1, KEY_HEADS), heads(2, KEY_HEADS), mask)
    assert not out_RLHD[visible.documents_RL < 0].any()
    assert out_RLHD[visible.documents_RL >= 0].all()


def test_rows_of_many_lengths_are_compiled_a_few_times_and_all_see_what_they_should() -> None:
    """Compiled by the compiler's front end alone, on the CPU and forward: what it guards on is the same on CUDA."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(flex_attention, backend=counter)
    for rows, blocks in [(2, 2), (2, 3), (1, 3), (3, 4), (4, 5), (2, 6), (1, 2), (3, 7), (4, 2), (3, 5)]:
        length = blocks * BLOCK_LENGTH
        documents_RL = torch.arange(length).repeat(rows, 1) // 50
        visible = Visible(documents_RL, torch.full((rows, length), -1), torch.zeros(rows, length, dtype=torch.bool))
        mask = create_block_mask(visible._standing_rule(), rows, None, length, length, "cpu", BLOCK_LENGTH)
        x_BHLD = torch.randn(rows, 1, length, 8)
        found = compiled(x_BHLD, x_BHLD, x_BHLD, block_mask=mask)
        expected = F.scaled_dot_product_attention(x_BHLD, x_BHLD, x_BHLD, attn_mask=visible.dense())
        assert torch.allclose(found, expected, atol=1e-5), (rows, length)
    assert 1 < counter.frame_count <= 6
