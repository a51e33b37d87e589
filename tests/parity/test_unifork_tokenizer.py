# SPDX-License-Identifier: Apache-2.0
"""VILA-U's tokenizer and UniFork's depth transformer equal the golden cases through the public load paths."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import SiglipVisionConfig, SiglipVisionModel

from tests.parity.golden import golden_parameters, weight_by_name
from unigen.models.depth_transformer import DepthTransformer, DepthTransformerSizes
from unigen.models.image_tokenizers.registry import load_image_tokenizer
from unigen.models.image_tokenizers.rqvae_siglip import RqVaeSiglip
from unigen.models.weights import load_exactly

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
NUM_HEADS = 4  # which no shape tells; see the README of the golden numbers


def shapes_of(case: Path) -> dict[str, dict[str, tuple[int, ...]]]:
    """Name -> shape, by part."""
    own = case.with_suffix(".keys.json")
    content = json.loads((own if own.is_file() else case.with_name("unifork_tokenizer.keys.json")).read_text())
    return {part: {name: tuple(shape) for name, shape in names.items()} for part, names in content.items()}


def weights_of(shapes: dict[str, tuple[int, ...]], prefix: str = "") -> dict[str, Tensor]:
    return {name: torch.from_numpy(weight_by_name(prefix + name, shape)) for name, shape in shapes.items()}


def released_folder(case: Path, folder: Path) -> Path:
    """A tower as VILA-U lays it out, with all that is never used: text tower, last layer, head, copies of the codebook."""
    shapes = shapes_of(case)
    num_rows, channels = shapes["quantizer"]["codebooks.0.weight"]
    depth = sum(name.endswith(".weight") for name in shapes["quantizer"])
    decoder = shapes["decoder"]
    base, latent = decoder["norm_out.weight"][0], decoder["conv_in.weight"][1]
    levels = len({name.split(".")[1] for name in decoder if name.startswith("up.")})
    siglip = SiglipVisionConfig(
        hidden_size=channels,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
    )
    (folder / "siglip").mkdir(parents=True)
    siglip.save_pretrained(folder / "siglip")
    vision = {f"siglip_model.vision_model.{name}": t for name, t in SiglipVisionModel(siglip).state_dict().items()}
    quantizer = weights_of(shapes["quantizer"])
    codebook = weights_of({"quantizer.codebooks.0.weight": (num_rows, channels)})["quantizer.codebooks.0.weight"]
    quantizer |= {name: codebook.clone() for name in quantizer if name.endswith(".weight")}
    tower = {
        **vision,
        "logit_scale": torch.zeros(1),
        "siglip_model.logit_scale": torch.zeros(1),
        "siglip_model.text_model.head.bias": torch.zeros(8),
        **{f"quantizer.{name}": tensor for name, tensor in quantizer.items()},
        **weights_of({"post_quant_conv.weight": (latent, channels, 1, 1), "post_quant_conv.bias": (latent,)}),
        **{f"decoder.{name}": tensor for name, tensor in weights_of(decoder).items()},
    }
    rqtransformer = {f"rqtransformer.{name}": t for name, t in weights_of(shapes["rqtransformer"]).items()}
    save_file(
        {**{f"rqvaesiglip.{name}": tensor for name, tensor in tower.items()}, **rqtransformer},
        folder / "model.safetensors",
    )
    multipliers = [decoder[f"up.{level}.block.0.conv1.weight"][0] // base for level in range(levels)]
    rqvae = {
        "pretrained_model": str(folder / "siglip"),
        "embed_dim": channels,
        "n_embed": num_rows - 1,
        "code_shape": [16, 16, depth],
        "shared_codebook": True,
        "ddconfig": {
            "ch": base,
            "ch_mult": multipliers,
            "num_res_blocks": 2,
            "attn_resolutions": [16],
            "z_channels": latent,
            "out_ch": 3,
            "resolution": 256,
        },
    }
    content: dict[str, Any] = {"model_type": "rqvaesigliptransformer_model", "rqvaesiglip": rqvae, "rqtransformer": {}}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(params=golden_parameters("unifork_tokenizer"), scope="module")
def case(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(params=["released", "saved again"], scope="module")
def tokenizer(case: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> RqVaeSiglip:
    folder = tmp_path_factory.mktemp("tower")
    loaded = load_image_tokenizer(released_folder(case, folder))
    if request.param == "saved again":
        loaded.save_pretrained(folder / "ours")
        loaded = load_image_tokenizer(folder / "ours")
    assert isinstance(loaded, RqVaeSiglip)
    return loaded


@pytest.fixture(scope="module")
def depth_transformer(case: Path) -> DepthTransformer:
    shapes = shapes_of(case)["rqtransformer"]
    layers = {name.split(".")[2] for name in shapes if name.startswith("head_transformer.blocks.")}
    sizes = DepthTransformerSizes(
        depth=shapes["pos_emb_d"][1],
        codebook_size=shapes["classifier_mlp.linear.bias"][0],
        code_channels=shapes["in_mlp_1.weight"][1],
        hidden_size=shapes["in_mlp_2.weight"][1],
        width=shapes["in_mlp_2.weight"][0],
        attention_width=shapes["head_transformer.blocks.0.attn.key.weight"][0],
        num_heads=NUM_HEADS,
        num_layers=len(layers),
    )
    model = DepthTransformer(sizes)
    load_exactly(model, weights_of(shapes), case)
    return model.eval()


def test_features_have_the_golden_codes_and_sums(case: Path, tokenizer: RqVaeSiglip) -> None:
    golden = load_file(case)
    quantised, codes = tokenizer.quantizer(golden["features"])
    assert torch.equal(codes, golden["codes"])
    torch.testing.assert_close(quantised.detach(), golden["quantized"], **TOLERANCE)
    embeddings = tokenizer.depth_embeddings(codes.flatten(1, 2))
    torch.testing.assert_close(embeddings.detach(), golden["depth_embeddings"], **TOLERANCE)


def test_latents_become_the_golden_pixels(case: Path, tokenizer: RqVaeSiglip) -> None:
    golden = load_file(case)
    with torch.no_grad():
        decoded = tokenizer.decoder(golden["decoder_latents"])
    torch.testing.assert_close(decoded, golden["decoded"], **TOLERANCE)


def test_hidden_states_give_the_golden_logits_and_loss(
    case: Path, tokenizer: RqVaeSiglip, depth_transformer: DepthTransformer
) -> None:
    golden = load_file(case)
    codes = golden["codes"].flatten(0, 2)
    with torch.no_grad():
        logits = depth_transformer(golden["hidden"].flatten(0, 1), tokenizer.depth_embeddings(codes))
    torch.testing.assert_close(logits, golden["depth_logits"].flatten(0, 1), **TOLERANCE)
    loss = F.cross_entropy(logits.flatten(0, 1), codes.flatten())
    torch.testing.assert_close(loss, golden["depth_loss"][0], **TOLERANCE)


def test_a_saved_tokenizer_holds_nothing_twice_and_nothing_unused(tokenizer: RqVaeSiglip, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    assert [name for name in names if "codebooks" in name] == ["quantizer.codebooks.0.weight"]
    assert not [name for name in names if "text_model" in name or "head" in name or "layers.1." in name]
