# SPDX-License-Identifier: Apache-2.0
"""VILA-U's tokenizer: codes, features, both layouts of its folder, and a quantiser that nothing changes unasked."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipConfig, SiglipModel

from unigen.errors import CheckpointError, ConfigError, DataError
from unigen.models.cost import count_parameters
from unigen.models.image_tokenizers.registry import ImageTokenizer, build_image_tokenizer, load_image_tokenizer
from unigen.models.image_tokenizers.residual import ResidualQuantizer
from unigen.models.image_tokenizers.rqvae_siglip import RqVaeSiglip, RqVaeSiglipConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "models"
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
SIZES: dict[str, Any] = {
    "siglip_config": VISION,
    "codebook_size": 32,
    "depth": 3,
    "latent_channels": 8,
    "base_channels": 8,
    "channel_multipliers": [1, 1, 2],
    "res_blocks": 1,
    "attention_resolutions": [4],
    "norm_groups": 4,
    "resolution": 16,
}
RELEASED = {
    "embed_dim": 16,
    "n_embed": 32,
    "code_shape": [4, 4, 3],
    "latent_shape": [4, 4, 16],
    "shared_codebook": True,
    "ddconfig": {
        "ch": 8,
        "ch_mult": [1, 1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [4],
        "z_channels": 8,
        "out_ch": 3,
        "resolution": 16,
        "double_z": False,
    },
}


def small_tokenizer() -> RqVaeSiglip:
    torch.manual_seed(0)
    return RqVaeSiglip(RqVaeSiglipConfig(**{**SIZES, "norm_groups": 8})).eval()


def pixels(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def whole_siglip() -> SiglipModel:
    text = {
        key: VISION[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    torch.manual_seed(2)
    siglip = SiglipModel(SiglipConfig(text_config={**text, "vocab_size": 20}, vision_config=VISION))
    return siglip.eval()


def released_weights(siglip: SiglipModel) -> dict[str, torch.Tensor]:
    """All that a released tower holds, the unused and the repeated too."""
    with_defaults = {key: value for key, value in SIZES.items() if key != "norm_groups"}
    own = RqVaeSiglip(RqVaeSiglipConfig(**{**with_defaults, "base_channels": 32})).state_dict()
    named = {f"siglip_model.{name}": tensor for name, tensor in siglip.state_dict().items()}
    codebook = own["quantizer.codebooks.0.weight"]
    for depth in range(3):
        named[f"quantizer.codebooks.{depth}.weight"] = codebook.clone()
        named[f"quantizer.codebooks.{depth}.embed_ema"] = codebook[:-1].clone()
        named[f"quantizer.codebooks.{depth}.cluster_size_ema"] = torch.ones(32)
    return {
        **named,
        "logit_scale": torch.zeros(1),
        **{k: v for k, v in own.items() if k.startswith(("decoder", "post"))},
    }


def write_released(folder: Path, layout: str, weights: dict[str, torch.Tensor]) -> Path:
    whole_siglip().config.save_pretrained(folder / "siglip")
    fields = {**RELEASED, "ddconfig": {**RELEASED["ddconfig"], "ch": 32}, "pretrained_model": str(folder / "siglip")}  # type: ignore[dict-item]
    if layout == "flat":
        content, prefix = {"model_type": "rqvaesiglip_model", **fields}, ""
    else:
        content, prefix = {"model_type": "rqvaesigliptransformer_model", "rqvaesiglip": fields}, "rqvaesiglip."
        content["rqtransformer"] = (
            {"embed_dim": 2560} if layout == "VILA-U" else {"embed_dim": 3584, "embed_dim_out": 896}
        )
        weights = {f"{prefix}{name}": tensor for name, tensor in weights.items()} | {
            "rqtransformer.pos_emb_d": torch.zeros(1)
        }
    (folder / "config.json").write_text(json.dumps(content))
    save_file({name: tensor.contiguous().clone() for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("layout", ["VILA-U", "UniFork", "flat"])
def test_a_folder_of_every_layout_loads_and_is_saved_without_what_is_unused(tmp_path: Path, layout: str) -> None:
    siglip = whole_siglip()
    loaded = load_image_tokenizer(write_released(tmp_path, layout, released_weights(siglip)))
    assert isinstance(loaded, RqVaeSiglip)
    images = pixels(2, 3, 16, 16)
    with torch.no_grad():
        expected = siglip.vision_model(pixel_values=images, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(loaded.features(images), expected)
    loaded.save_pretrained(tmp_path / "ours")
    saved = load_file(tmp_path / "ours" / "model.safetensors")
    assert [name for name in saved if "codebook" in name] == ["quantizer.codebooks.0.weight"]
    assert not [
        name for name in saved if "text_model" in name or "ema" in name or ".head." in name or "layers.2." in name
    ]
    again = load_image_tokenizer(tmp_path / "ours")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert torch.equal(again.encode(images), loaded.encode(images))


def test_depths_with_codebooks_of_their_own_are_refused(tmp_path: Path) -> None:
    weights = released_weights(whole_siglip())
    weights["quantizer.codebooks.2.weight"] += 1
    with pytest.raises(CheckpointError, match=r"codebooks\.2\.weight"):
        load_image_tokenizer(write_released(tmp_path, "VILA-U", weights))


def test_one_name_of_the_codebook_is_enough(tmp_path: Path) -> None:
    weights = released_weights(whole_siglip())
    del weights["quantizer.codebooks.0.weight"], weights["quantizer.codebooks.1.weight"]
    assert load_image_tokenizer(write_released(tmp_path, "VILA-U", weights)).codebook_size == 32


def test_the_shipped_config_has_the_released_size() -> None:
    shipped = build_image_tokenizer(CONFIGS / "vila-u-7b-256" / "config.json")
    assert isinstance(shipped, RqVaeSiglip)
    assert count_parameters(shipped.quantizer) == 16385 * 1024
    assert count_parameters(shipped.post_quant_conv) == 262_400
    assert count_parameters(shipped.decoder) == 42_449_795
    assert (shipped.downsample_factor, shipped.codebook_size, shipped.depth) == (16, 16384, 4)
    with torch.device("meta"):
        default = RqVaeSiglip(RqVaeSiglipConfig())
    assert {k: v.shape for k, v in default.state_dict().items()} == {
        k: v.shape for k, v in shipped.state_dict().items()
    }


def test_codes_are_the_nearest_rows_to_what_the_rows_before_left_over() -> None:
    torch.manual_seed(0)
    quantizer, vectors = ResidualQuantizer(10, 4, 3), torch.randn(2, 5, 4)
    codes = quantizer.codes(vectors)
    residual = vectors.clone()
    for depth in range(3):
        nearest = torch.cdist(residual, quantizer.codebook_KC.detach().expand(2, -1, -1)).argmin(-1)
        assert torch.equal(codes[..., depth], nearest)
        residual -= quantizer.codebook_KC.detach()[nearest]
    torch.testing.assert_close(quantizer.lookup(codes).detach(), vectors - residual)


@pytest.mark.parametrize("side", [16, 24])
def test_images_of_both_sizes_become_codes_and_come_back_in_their_size(side: int) -> None:
    tokenizer, images = small_tokenizer(), pixels(2, 3, side, side)
    codes = tokenizer.encode(images)
    assert isinstance(tokenizer, ImageTokenizer)
    assert (codes.shape, codes.dtype) == ((2, (side // 4) ** 2, 3), torch.int64)
    assert tokenizer.decode(codes).shape == images.shape
    torch.testing.assert_close(tokenizer.lookup(codes), tokenizer.depth_embeddings(codes).sum(2))


def test_a_wide_image_keeps_its_shape_and_needs_its_grid() -> None:
    tokenizer, images = small_tokenizer(), pixels(1, 3, 8, 24)
    codes = tokenizer.encode(images)
    assert tokenizer.decode(codes, (2, 6)).shape == images.shape
    with pytest.raises(DataError, match="12 positions"):
        tokenizer.decode(codes)
    with pytest.raises(DataError, match=r"10x16.*multiples of 4"):
        tokenizer.encode(pixels(1, 3, 10, 16))


def test_a_hundred_steps_of_training_what_reads_it_change_nothing_in_a_frozen_tokenizer(tmp_path: Path) -> None:
    small_tokenizer().save_pretrained(tmp_path)
    tokenizer = load_image_tokenizer(tmp_path)
    assert isinstance(tokenizer, RqVaeSiglip)
    before = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
    whole = torch.nn.ModuleDict({"tokenizer": tokenizer, "reader": torch.nn.Linear(16, 3)})
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.1)
    images = pixels(2, 3, 16, 16)
    for _ in range(100):
        whole.train()
        whole["reader"](tokenizer.lookup(tokenizer.encode(images))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = tokenizer.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_training_pass_reaches_encoder_codebook_and_decoder(tmp_path: Path) -> None:
    small_tokenizer().save_pretrained(tmp_path)
    tokenizer = load_image_tokenizer(tmp_path, trainable=True)
    images = pixels(2, 3, 16, 16)
    output = tokenizer(images)
    assert torch.equal(output.codes, tokenizer.encode(images))
    torch.testing.assert_close(output.reconstruction.detach(), tokenizer.decode(output.codes), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.partial_sums[:, :, -1], tokenizer.lookup(output.codes))
    output.reconstruction.square().mean().backward()
    assert tokenizer.siglip_model["vision_model"].embeddings.patch_embedding.weight.grad.abs().sum() > 0
    assert tokenizer.decoder.conv_in.weight.grad.abs().sum() > 0
    assert tokenizer.quantizer.codebooks[0].weight.grad is None
    (output.partial_sums - output.features.detach()[:, :, None]).square().mean().backward()
    assert tokenizer.quantizer.codebooks[0].weight.grad.abs().sum() > 0


def test_autocast_changes_no_code() -> None:
    tokenizer, images = small_tokenizer(), pixels(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = tokenizer.encode(images)
    assert torch.equal(codes, tokenizer.encode(images))


def test_impossible_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give 3 channel_multipliers"):
        RqVaeSiglipConfig(**{**SIZES, "channel_multipliers": [1, 2]})
    with pytest.raises(ConfigError, match="norm_groups=32"):
        RqVaeSiglipConfig(**{**SIZES, "norm_groups": 32})
    content = {"model_type": "rqvaesiglip_model", **RELEASED, "shared_codebook": False}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="shared_codebook"):
        build_image_tokenizer(tmp_path)
