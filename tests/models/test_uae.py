# SPDX-License-Identifier: Apache-2.0
"""UAE's sizes on the meta device, the states of its texts, its latents, and its adapters."""

import re

import pytest
import torch
from torch import nn

from tests.tiny_uae import small_uae
from unigen.config.folders import SHIPPED_CONFIGS
from unigen.config.uae import UaeSettings
from unigen.errors import CheckpointError, ConfigError
from unigen.models.text_states import join_states
from unigen.models.uae import PADDING_POSITION, Uae
from unigen.models.uae_adapters import TARGETS, Side, add_adapter
from unigen.models.uae_config import latent_side, uae_config

QWEN = SHIPPED_CONFIGS / "Qwen2.5-VL-3B-Instruct"
TEXTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [4]]
PAD = 2


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def full_size(name: str) -> Uae:
    with torch.device("meta"):
        return Uae(uae_config(QWEN, SHIPPED_CONFIGS / name))


@pytest.mark.parametrize(("name", "decoder"), [("large", 8_056_627_520), ("medium", 2_243_171_520)])
def test_the_shipped_configurations_have_the_released_sizes(name: str, decoder: int) -> None:
    model = full_size(f"stable-diffusion-3.5-{name}")
    assert size(model.llm) == 3_754_622_976
    assert size(model.llm.model.visual) == 668_684_288
    assert size(model.projector) == 50_343_936
    assert size(model.decoder) == decoder
    assert model.pooled_embedding.shape == (2048,)
    assert (model.latent_channels, latent_side(model.config, 1024)) == (16, 128)


@pytest.mark.parametrize(
    ("side", "layers", "parameters"), [("decoder", 303, 47_161_344), ("language_model", 252, 59_867_136)]
)
def test_adapters_stand_on_the_layers_that_the_papers_adapt(side: Side, layers: int, parameters: int) -> None:
    model = full_size("stable-diffusion-3.5-large")
    found = [module for name, module in model.named_modules() if re.fullmatch(TARGETS[side], name)]
    assert len(found) == layers
    assert sum(32 * (layer.in_features + layer.out_features) for layer in found) == parameters


@pytest.mark.parametrize("side", TARGETS)
def test_a_new_adapter_changes_nothing_and_is_all_that_is_trained(side: Side) -> None:
    model = small_uae()
    text, latents = [[5, 6, 7]], torch.randn(1, 4, 4, 4)

    @torch.no_grad()
    def outputs(one: Uae) -> list[torch.Tensor]:
        (states,) = one.prompt_states(text, PAD)
        return [states.states_TE, one.velocity(latents, torch.tensor([0.5]), join_states([states], [3]))]

    before = outputs(model)
    adapted = add_adapter(model, side, rank=2, alpha=4)
    torch.testing.assert_close(outputs(model), before)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".lora_" in name and (".decoder." in name) == (side == "decoder") for name in trained)


def test_the_states_of_a_text_are_those_of_transformers_whatever_stands_beside_it() -> None:
    model = small_uae()
    with torch.no_grad():
        together = model.prompt_states(TEXTS, PAD)
        for text, found in zip(TEXTS, together, strict=True):
            ids = torch.tensor([text])
            alone = model.llm.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            torch.testing.assert_close(found.states_TE, model.projector(alone)[0], rtol=1e-5, atol=1e-5)
            (again,) = model.prompt_states([text], PAD)
            torch.testing.assert_close(again.padding_E, found.padding_E, rtol=1e-5, atol=1e-5)


def test_all_padding_behind_a_text_has_the_state_that_is_kept_of_it() -> None:
    model, num_padding = small_uae(), 4
    text = TEXTS[0]
    ids = torch.tensor([[*text, *[PAD] * num_padding]])
    is_text = torch.tensor([[1] * len(text) + [0] * num_padding])
    # As transformers 4.50 numbers a padded text.
    positions = (is_text.cumsum(-1) - 1).masked_fill(is_text == 0, PADDING_POSITION)
    with torch.no_grad():
        hidden = model.llm.model(input_ids=ids, attention_mask=is_text, position_ids=positions.expand(3, -1, -1))
        states = model.projector(hidden.last_hidden_state)[0]
        (kept,) = model.prompt_states([text], PAD)
    torch.testing.assert_close(states[: len(text)], kept.states_TE, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states[len(text) :], kept.padding_E.expand(num_padding, -1), rtol=1e-5, atol=1e-5)


def test_latents_are_shifted_and_scaled_and_decoded_back() -> None:
    model = small_uae()
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    posterior = model.vae.encode(pixels).latent_dist
    noise = torch.randn(posterior.mean.shape)
    torch.testing.assert_close(model.encode_images(pixels), (posterior.mean - 0.1) * 1.5)
    torch.testing.assert_close(model.encode_images(pixels, noise), (posterior.mean + posterior.std * noise - 0.1) * 1.5)
    torch.testing.assert_close(
        model.decode_latents(model.encode_images(pixels)), model.vae.decode(posterior.mean).sample
    )


@pytest.mark.parametrize("resolution", [0, 1000, 4096])
def test_a_resolution_that_the_model_cannot_draw_is_refused(resolution: int) -> None:
    settings = UaeSettings(image_resolution=resolution)
    with pytest.raises(ConfigError, match=rf"image_resolution is {resolution}.*multiples of 16 up to 3072"):
        uae_config(QWEN, SHIPPED_CONFIGS / "stable-diffusion-3.5-large", settings=settings)


def test_parts_of_another_kind_are_refused() -> None:
    diffusion = SHIPPED_CONFIGS / "stable-diffusion-3.5-large"
    with pytest.raises(CheckpointError, match=r"without vision_config; give a Qwen2\.5-VL"):
        uae_config(SHIPPED_CONFIGS / "Qwen2.5-0.5B", diffusion)
    with pytest.raises(CheckpointError, match="'AutoencoderKL'; SD3Transformer2DModel is needed"):
        uae_config(QWEN, diffusion, decoder=diffusion / "vae")


@torch.no_grad()
def test_the_shapes_size_is_built_of_its_shipped_configurations() -> None:
    settings = UaeSettings(image_resolution=32)
    config = uae_config(
        SHIPPED_CONFIGS / "shapes-qwen2-vl", SHIPPED_CONFIGS / "shapes-sd3", projector_width=512, settings=settings
    )
    model = Uae(config).eval()
    (states,) = model.prompt_states([[5, 6, 7]], PAD)
    latents = model.encode_images(torch.zeros(1, 3, 32, 32))
    assert latents.shape == (1, 8, 8, 8)
    assert model.velocity(latents, torch.tensor([0.5]), join_states([states], [3])).shape == latents.shape
    assert model.decode_latents(latents).shape == (1, 3, 32, 32)
    assert size(model) < 6_000_000
