# SPDX-License-Identifier: Apache-2.0
"""The depth transformer: released sizes, teacher forcing that reads no later code, decoding that computes each slot once."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from unigen.errors import ConfigError
from unigen.models.cost import count_parameters
from unigen.models.depth_transformer import DepthTransformer, DepthTransformerSizes
from unigen.reference.depth_decoding import decode_depths_slowly

POSITIONS, CODES = 5, 20


def small(attention_width: int = 24) -> DepthTransformer:
    torch.manual_seed(0)
    sizes = DepthTransformerSizes(
        codebook_size=CODES,
        code_channels=6,
        hidden_size=12,
        width=16,
        attention_width=attention_width,
        num_heads=4,
        num_layers=2,
    )
    return DepthTransformer(sizes).eval()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, codes, and a codebook."""
    torch.manual_seed(1)
    return torch.randn(POSITIONS, 12), torch.randint(0, CODES, (POSITIONS, 4)), torch.randn(CODES, 6)


def on_meta(**sizes: int) -> int:
    with torch.device("meta"):
        return count_parameters(DepthTransformer(DepthTransformerSizes(**sizes)))


def test_the_released_head_has_its_exact_size_and_a_narrow_one_is_a_fifth_of_it() -> None:
    assert on_meta() == 401_936_896
    assert on_meta(attention_width=896, num_heads=14) == 74_296_576


@pytest.mark.parametrize("attention_width", [8, 16, 24])
def test_decoding_with_a_cache_gives_what_recomputing_all_slots_gives(attention_width: int) -> None:
    model, (hidden, _, codebook) = small(attention_width), inputs()

    def choose(logits: Tensor, depth: int) -> Tensor:
        noise = torch.rand(logits.shape, generator=torch.Generator().manual_seed(depth))
        return (logits + 3 * noise).argmax(1)

    def embed(codes: Tensor) -> Tensor:
        return F.embedding(codes, codebook)

    codes, summed = model.decode(hidden, embed, choose)
    slow_codes, slow_summed = decode_depths_slowly(model, hidden, embed, choose)
    assert torch.equal(codes, slow_codes)
    assert len(codes.unique()) > 4
    torch.testing.assert_close(summed, slow_summed)
    torch.testing.assert_close(summed, embed(codes).sum(1))


def test_logits_of_decoding_are_those_of_teacher_forcing() -> None:
    model, (hidden, codes, codebook) = small(), inputs()
    seen = []

    def choose(logits: Tensor, depth: int) -> Tensor:
        seen.append(logits)
        return codes[:, depth]

    model.decode(hidden, lambda chosen: codebook[chosen], choose)
    with torch.no_grad():
        forced = model(hidden, codebook[codes])
    torch.testing.assert_close(torch.stack(seen, 1), forced, rtol=1e-5, atol=1e-6)


def test_a_slot_reads_no_code_of_its_own_depth_or_a_later_one() -> None:
    model, (hidden, codes, codebook) = small(), inputs()
    with torch.no_grad():
        before = model(hidden, codebook[codes])
        for depth in range(4):
            changed = codes.clone()
            changed[:, depth] = (changed[:, depth] + 1) % CODES
            after = model(hidden, codebook[changed])
            torch.testing.assert_close(after[:, : depth + 1], before[:, : depth + 1], rtol=0, atol=1e-6)
            assert depth == 3 or not torch.allclose(after[:, depth + 1], before[:, depth + 1])


def test_decoding_computes_four_slots_in_the_place_of_ten() -> None:
    model, (hidden, _, codebook) = small(), inputs()

    def flops(decode: object) -> int:
        with FlopCounterMode(display=False) as counter:
            decode(hidden, lambda codes: codebook[codes], lambda logits, depth: logits.argmax(1))  # type: ignore[operator]
        return counter.get_total_flops()

    slow = flops(lambda *arguments: decode_depths_slowly(model, *arguments))
    assert slow > 2 * flops(model.decode)


def test_dropout_acts_in_training_alone() -> None:
    model, (hidden, codes, codebook) = small(), inputs()
    with torch.no_grad():
        assert torch.equal(model(hidden, codebook[codes]), model(hidden, codebook[codes]))
        model.train()
        assert not torch.equal(model(hidden, codebook[codes]), model(hidden, codebook[codes]))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_heads=5.*attention_width=24"):
        DepthTransformerSizes(attention_width=24, num_heads=5)
