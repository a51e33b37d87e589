# SPDX-License-Identifier: Apache-2.0
"""What UAE's decoder costs, against a count of the operations themselves."""

from pathlib import Path

import pytest
import torch

from tests.tiny_uae import DECODER, tiny_config
from unigen.models.cost import measure_on_meta
from unigen.models.text_states import TextStates
from unigen.models.uae import Uae
from unigen.models.uae_config import uae_config
from unigen.models.uae_cost import decoder_activation_bytes, decoder_forward_flops, num_image_tokens

MODELS = Path(__file__).resolve().parents[2] / "configs" / "models"


@pytest.mark.parametrize(("text_tokens", "resolution"), [(3, 16), (7, 32)])
def test_a_forward_pass_of_the_decoder_is_what_is_counted(text_tokens: int, resolution: int) -> None:
    config = tiny_config()
    with torch.device("meta"):
        model = Uae(config)
        side = resolution // 4
        latents, text = torch.empty(1, 4, side, side), TextStates(torch.empty(1, text_tokens, 24), None)
        counted = measure_on_meta(lambda: model.velocity(latents, torch.empty(1), text))
    assert decoder_forward_flops(config, text_tokens, resolution) == counted.flops
    assert num_image_tokens(config, resolution) == (side // 2) ** 2


def test_the_largest_decoder_takes_the_published_operations() -> None:
    config = uae_config(MODELS / "Qwen2.5-VL-3B-Instruct", MODELS / "stable-diffusion-3.5-large")
    layers, width = 38, 2432
    for resolution, tokens in ((512, 1024), (1024, 4096)):
        rough = 2 * 12 * width**2 * layers * (tokens + 128) + 4 * layers * width * (tokens + 128) ** 2
        assert decoder_forward_flops(config, 128, resolution) == pytest.approx(rough, rel=0.01)


def test_what_is_kept_for_the_backward_pass_is_about_what_autograd_saves() -> None:
    wide = {"attention_head_dim": 64, "num_attention_heads": 16, "caption_projection_dim": 1024, "num_layers": 6}
    config = tiny_config(
        decoder_config={**DECODER, **wide, "dual_attention_layers": []}, image_resolution=32
    )  # attention matrices are small
    with torch.device("meta"):
        model = Uae(config)
        for part in (model.llm, model.projector):
            part.requires_grad_(False)
        latents, text = torch.empty(1, 4, 8, 8), TextStates(torch.empty(1, 8, 24), None)
        kept = measure_on_meta(lambda: model.velocity(latents, torch.empty(1), text)).kept_bytes
    assert decoder_activation_bytes(config, 8, 4, "none") == pytest.approx(kept, rel=0.2)
