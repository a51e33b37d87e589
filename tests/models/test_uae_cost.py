# SPDX-License-Identifier: Apache-2.0
"""What UAE's decoder costs, against a count of the operations themselves."""

from pathlib import Path

import pytest
import torch

from tests.tiny_uae import tiny_config
from unigen.models.cost import measure_on_meta
from unigen.models.text_states import TextStates
from unigen.models.uae import Uae
from unigen.models.uae_config import uae_config
from unigen.models.uae_cost import decoder_forward_flops, num_image_tokens

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
