# SPDX-License-Identifier: Apache-2.0
"""Joint attention with a mask over the text, against diffusers' own and against texts without padding."""

import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0

from tests.tiny_uae import small_uae
from unigen.models.joint_attention import MaskedJointAttention
from unigen.models.text_states import TextStates


def inputs(length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 4, 4, generator=generator)
    return latents, torch.tensor([0.3, 0.9]), torch.randn(2, length, 24, generator=generator)


@torch.no_grad()
def test_without_a_mask_it_is_diffusers_own_attention() -> None:
    model = small_uae()
    latents, sigma, states = inputs(5)
    found = model.velocity(latents, sigma, TextStates(states, None))
    assert all(isinstance(one, MaskedJointAttention) for one in model.decoder.attn_processors.values())
    model.decoder.set_attn_processor(JointAttnProcessor2_0())
    torch.testing.assert_close(found, model.velocity(latents, sigma, TextStates(states, None)), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_hidden_padding_changes_nothing_and_visible_padding_does() -> None:
    model = small_uae()
    latents, sigma, states = inputs(6)
    is_visible = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    masked = model.velocity(latents, sigma, TextStates(states, is_visible))
    other = states.clone()
    other[1, 4:] += 3.0
    torch.testing.assert_close(model.velocity(latents, sigma, TextStates(other, is_visible)), masked, rtol=0, atol=0)
    for row, length in enumerate((6, 4)):
        alone = model.velocity(
            latents[row : row + 1], sigma[row : row + 1], TextStates(states[row : row + 1, :length], None)
        )
        torch.testing.assert_close(masked[row : row + 1], alone, rtol=1e-5, atol=1e-6)
    seen = model.velocity(latents, sigma, TextStates(states, None))
    assert float((seen[1] - masked[1]).abs().max()) > 1e-3
