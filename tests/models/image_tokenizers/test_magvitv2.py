# SPDX-License-Identifier: Apache-2.0
"""MAGViT-v2: codes, sizes, gradients, and folders that load or are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from unigen.errors import CheckpointError, ConfigError, DataError
from unigen.models.image_tokenizers.lookup_free import LookupFreeQuantizer
from unigen.models.image_tokenizers.magvitv2 import MagVitV2, MagVitV2Config
from unigen.models.image_tokenizers.registry import ImageTokenizer, build_image_tokenizer, load_image_tokenizer

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "models"


def small_tokenizer() -> MagVitV2:
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "base_channels": 8,
        "encoder_channel_multipliers": [1, 1, 2],
        "decoder_channel_multipliers": [1, 2, 2],
        "encoder_res_blocks": [1, 2, 1],
        "decoder_res_blocks": [2, 1, 1],
        "latent_channels": 6,
        "norm_groups": 4,
        "resolution": 16,
    }
    return MagVitV2(MagVitV2Config(**small)).eval()


def pixels(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_first_channel_is_the_most_significant_bit_and_zero_counts_as_negative() -> None:
    quantizer = LookupFreeQuantizer(3)
    latents = torch.tensor([[0.5, -1.0, 0.0], [-0.1, 0.0, 2.0], [3.0, 0.1, 0.2]])  # one row per position
    codes = quantizer.codes(latents.T.reshape(1, 3, 1, 3))
    assert codes.tolist() == [[4, 1, 7]]
    assert quantizer.lookup(codes, (1, 3))[0, :, 0, 1].tolist() == [-1.0, -1.0, 1.0]
    assert quantizer.quantise(torch.zeros(1, 3, 1, 1)).flatten().tolist() == [-1.0, -1.0, -1.0]


def test_every_code_survives_lookup_and_quantisation() -> None:
    quantizer = LookupFreeQuantizer(6)
    codes = torch.randperm(64).reshape(2, 32)
    assert torch.equal(quantizer.codes(quantizer.lookup(codes, (4, 8))), codes)


def test_the_shipped_config_has_the_public_size_and_is_the_default() -> None:
    shipped = build_image_tokenizer(CONFIGS / "magvitv2" / "config.json")
    assert sum(parameter.numel() for parameter in shipped.parameters()) == 95_387_004
    assert len(shipped.state_dict()) == 382
    assert (shipped.downsample_factor, shipped.codebook_size) == (16, 8192)
    with torch.device("meta"):
        default = MagVitV2(MagVitV2Config())
    assert {k: v.shape for k, v in default.state_dict().items()} == {
        k: v.shape for k, v in shipped.state_dict().items()
    }


def test_a_wide_image_keeps_its_shape_and_needs_its_grid() -> None:
    tokenizer = small_tokenizer()
    images = pixels(2, 3, 8, 24)
    codes = tokenizer.encode(images)
    assert codes.shape == (2, 12)
    assert codes.dtype == torch.int64
    assert tokenizer.decode(codes, (2, 6)).shape == images.shape
    with pytest.raises(DataError, match="12 positions"):
        tokenizer.decode(codes)


def test_codes_run_row_by_row_from_the_top_left() -> None:
    tokenizer = small_tokenizer()
    images = pixels(1, 3, 8, 24)
    with torch.no_grad():
        bits = (tokenizer.latents(images) > 0).long()
    expected = sum(bits[0, channel] * 2 ** (5 - channel) for channel in range(6))
    assert tokenizer.encode(images).reshape(2, 6).tolist() == expected.tolist()


def test_a_size_that_is_no_multiple_of_the_factor_is_refused() -> None:
    with pytest.raises(DataError, match=r"10x16.*multiples of 4"):
        small_tokenizer().encode(pixels(1, 3, 10, 16))


def test_training_pass_equals_encode_and_decode_and_reaches_every_parameter() -> None:
    tokenizer = small_tokenizer()
    images = pixels(2, 3, 16, 16)
    output = tokenizer(images)
    assert torch.equal(output.codes, tokenizer.encode(images))
    torch.testing.assert_close(output.reconstruction.detach(), tokenizer.decode(output.codes), rtol=1e-4, atol=1e-5)
    output.reconstruction.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in tokenizer.named_parameters() if name.endswith("weight")}
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values())


def test_autocast_changes_no_code() -> None:
    tokenizer = small_tokenizer()
    images = pixels(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = tokenizer.encode(images)
    assert torch.equal(codes, tokenizer.encode(images))


def test_a_saved_tokenizer_loads_with_the_same_codes_frozen_or_trainable(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    loaded = load_image_tokenizer(tmp_path)
    images = pixels(2, 3, 16, 16)
    assert isinstance(loaded, ImageTokenizer)
    assert torch.equal(loaded.encode(images), tokenizer.encode(images))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(parameter.requires_grad for parameter in load_image_tokenizer(tmp_path, trainable=True).parameters())
    assert torch.equal(MagVitV2.from_pretrained(tmp_path).encode(images), tokenizer.encode(images))


@pytest.mark.parametrize("layout", ["pytorch_model.safetensors", "model.safetensors", "pytorch_model.bin", "sharded"])
def test_every_released_layout_loads(tmp_path: Path, layout: str) -> None:
    tokenizer = small_tokenizer()
    write_layout(tmp_path, {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}, layout)
    tokenizer.config.save_pretrained(tmp_path)
    images = pixels(2, 3, 16, 16)
    assert torch.equal(load_image_tokenizer(tmp_path).encode(images), tokenizer.encode(images))


def write_layout(folder: Path, weights: dict[str, torch.Tensor], layout: str) -> None:
    if layout == "sharded":
        halves = [dict(list(weights.items())[start::2]) for start in (0, 1)]
        for number, half in enumerate(halves):
            torch.save(half, folder / f"part-{number}.bin")
        weight_map = {name: f"part-{number}.bin" for number, half in enumerate(halves) for name in half}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    elif layout.endswith(".bin"):
        torch.save(weights, folder / layout)
    else:
        save_file(weights, folder / layout)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"1 missing \(decoder\.conv_in\.bias\)"),
        ("unexpected", r"1 unexpected \(decoder\.surprise\)"),
        ("shape", r"decoder\.conv_in\.bias \(3,\) instead of \(16,\)"),
        ("bit order", r"quantize\.embedding"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, damage: str, message: str) -> None:
    tokenizer = small_tokenizer()
    tokenizer.config.save_pretrained(tmp_path)
    weights = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
    if damage == "missing":
        del weights["decoder.conv_in.bias"]
    elif damage == "unexpected":
        weights["decoder.surprise"] = torch.zeros(1)
    elif damage == "shape":
        weights["decoder.conv_in.bias"] = torch.zeros(3)
    else:
        weights["quantize.embedding"] = weights["quantize.embedding"].flip(1).contiguous()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_image_tokenizer(tmp_path)


class Danger:
    """Runs code when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.target,))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    small_tokenizer().config.save_pretrained(tmp_path)
    torch.save({"encoder.conv_in.weight": Danger(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load_image_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_broken_folder_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_image_tokenizer(tmp_path)
    small_tokenizer().config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no weights"):
        load_image_tokenizer(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_image_tokenizer(tmp_path)
    index = {"weight_map": {"a": "../model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="plain file name"):
        load_image_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
    with pytest.raises(CheckpointError, match="'VQModel'"):
        load_image_tokenizer(tmp_path)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="one entry per level"):
        MagVitV2Config(encoder_res_blocks=[1, 2])
    with pytest.raises(ConfigError, match="norm_groups=32"):
        MagVitV2Config(base_channels=24)
