# SPDX-License-Identifier: Apache-2.0
"""Vision towers give what transformers gives, for both kinds of folder, and refuse what is not theirs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from unigen.errors import CheckpointError
from unigen.models.vision import VisionInput, VisionTower

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = SIZES | {"vocab_size": 20, "max_position_embeddings": 8}
SIGLIP = SIZES | {"image_size": 30, "patch_size": 14}
NAFLEX = SIZES | {"num_patches": 16, "patch_size": 8}
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "models"


def noise_image(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def siglip_model() -> SiglipModel:
    return randomised(SiglipModel(SiglipConfig(text_config=TEXT, vision_config=SIGLIP)))  # type: ignore[return-value]


def naflex_model() -> Siglip2Model:
    return randomised(Siglip2Model(Siglip2Config(text_config=TEXT, vision_config=NAFLEX)))  # type: ignore[return-value]


def test_siglip_features_equal_the_penultimate_hidden_states_of_transformers(tmp_path: Path) -> None:
    model = siglip_model()
    model.save_pretrained(tmp_path)
    tower = VisionTower.load(tmp_path)
    inputs = VisionInput.stack([tower.preprocess(noise_image(50, 20, seed)) for seed in range(3)])
    with torch.no_grad():
        expected = model.vision_model(inputs.pixel_values, output_hidden_states=True).hidden_states[-2]
    assert tower.features(inputs).shape == (3, tower.max_tokens, tower.hidden_size) == (3, 4, 32)
    torch.testing.assert_close(tower.features(inputs), expected, rtol=0, atol=0)


def test_naflex_features_equal_transformers_on_every_real_patch(tmp_path: Path) -> None:
    model = naflex_model()
    model.save_pretrained(tmp_path)
    tower = VisionTower.load(tmp_path)
    singles = [tower.preprocess(noise_image(*size)) for size in ((64, 16), (20, 60), (33, 33))]
    inputs = VisionInput.stack(singles)
    with torch.no_grad():
        outputs = model.vision_model(
            inputs.pixel_values, inputs.attention_mask, inputs.spatial_shape, output_hidden_states=True
        )
    features = tower.features(inputs)
    counts = [tower.num_tokens(single) for single in singles]
    assert len(set(counts)) > 1
    assert max(counts) <= tower.max_tokens == 16
    for image, count in enumerate(counts):
        torch.testing.assert_close(features[image, :count], outputs.hidden_states[-2][image, :count], rtol=0, atol=0)
        assert features[image, count:].abs().sum() == 0


def test_a_vision_half_on_its_own_loads_like_the_whole_model(tmp_path: Path) -> None:
    wholes_and_halves = (
        (siglip_model(), SiglipVisionModel(SiglipVisionConfig(**SIGLIP))),
        (naflex_model(), Siglip2VisionModel(Siglip2VisionConfig(**NAFLEX))),
    )
    for whole, half in wholes_and_halves:
        whole.save_pretrained(tmp_path / "whole")
        half.load_state_dict(whole.vision_model.state_dict())
        half.save_pretrained(tmp_path / "half")
        towers = [VisionTower.load(tmp_path / name) for name in ("whole", "half")]
        inputs = VisionInput.stack([towers[0].preprocess(noise_image(40, 30))])
        torch.testing.assert_close(towers[0].features(inputs), towers[1].features(inputs), rtol=0, atol=0)


def test_the_kind_is_read_from_config_json_and_never_from_the_folder_name(tmp_path: Path) -> None:
    folder = tmp_path / "siglip2-naflex-magvitv2"
    siglip_model().save_pretrained(folder)
    assert not VisionTower.load(folder).is_naflex


def test_siglip_preprocessing_squashes_to_a_square_and_scales_to_plus_minus_one(tmp_path: Path) -> None:
    siglip_model().save_pretrained(tmp_path)
    tower = VisionTower.load(tmp_path)
    image = noise_image(70, 25, mode="L")
    pixels = tower.preprocess(image).pixel_values
    resized = np.asarray(image.convert("RGB").resize((30, 30), Image.Resampling.BICUBIC), dtype=np.float64)
    np.testing.assert_allclose(pixels.numpy(), resized.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


def test_naflex_preprocessing_is_that_of_the_siglip2_processor(tmp_path: Path) -> None:
    naflex_model().save_pretrained(tmp_path)
    tower = VisionTower.load(tmp_path)
    image = noise_image(90, 31)
    one = tower.preprocess(image)
    expected = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)(images=[image], return_tensors="pt")
    torch.testing.assert_close(one.pixel_values, expected["pixel_values"][0])
    assert one.spatial_shape is not None
    assert one.spatial_shape.tolist() == expected["spatial_shapes"][0].tolist()
    assert tower.num_tokens(one) == int(expected["pixel_attention_mask"].sum())


def test_a_tower_is_frozen_and_stays_float32_under_autocast(tmp_path: Path) -> None:
    siglip_model().save_pretrained(tmp_path)
    tower = VisionTower.load(tmp_path)
    inputs = VisionInput.stack([tower.preprocess(noise_image(30, 30))])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = tower.features(inputs)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, tower.features(inputs), rtol=0, atol=0)
    assert not features.requires_grad
    assert VisionTower.load(tmp_path, trainable=True).features(inputs).requires_grad


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    siglip_model().save_pretrained(tmp_path)
    name = "vision_model.encoder.layers.1.mlp.fc1.bias"
    weights = load_file(tmp_path / "model.safetensors")
    taken = weights.pop(name)
    if damage == "shape":
        weights[name] = taken[:-1].clone()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"encoder\.layers\.1\.mlp\.fc1\.bias"):
        VisionTower.load(tmp_path)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(CheckpointError, match="'clip'"):
        VisionTower.load(tmp_path)


def test_shipped_configs_build_on_the_meta_device_at_their_public_sizes() -> None:
    siglip = VisionTower.from_config(CONFIGS / "siglip-so400m-patch14-384" / "config.json")
    naflex = VisionTower.from_config(CONFIGS / "siglip2-so400m-patch16-naflex")
    assert (siglip.max_tokens, siglip.hidden_size, siglip.is_naflex) == (729, 1152, False)
    assert (naflex.max_tokens, naflex.hidden_size, naflex.is_naflex) == (256, 1152, True)
    assert all(parameter.is_meta for parameter in siglip.parameters())
    assert len(siglip.encoder.encoder.layers) == 26
