# SPDX-License-Identifier: Apache-2.0
"""Names of a saved Qwen2.5-VL of any version, bare or inside of an adapter, and of the projector beside it."""

import pytest

from unigen.models.uae_names import projector_names, uae_name

LAYER = "llm.model.language_model.layers.3.self_attn.q_proj"


@pytest.mark.parametrize(
    ("saved", "ours"),
    [
        ("model.layers.3.self_attn.q_proj.weight", f"{LAYER}.weight"),
        ("model.language_model.layers.3.self_attn.q_proj.weight", f"{LAYER}.weight"),
        ("model.base_model.model.layers.3.self_attn.q_proj.base_layer.weight", f"{LAYER}.weight"),
        ("base_model.model.model.layers.3.self_attn.q_proj.base_layer.bias", f"{LAYER}.bias"),
        (
            "model.language_model.base_model.model.layers.3.self_attn.q_proj.lora_A.default.weight",
            f"{LAYER}.lora_A.weight",
        ),
        ("model.base_model.model.layers.3.self_attn.q_proj.lora_B.weight", f"{LAYER}.lora_B.weight"),
        ("model.base_model.model.norm.weight", "llm.model.language_model.norm.weight"),
        ("module.model.embed_tokens.weight", "llm.model.language_model.embed_tokens.weight"),
        ("visual.blocks.0.attn.qkv.weight", "llm.model.visual.blocks.0.attn.qkv.weight"),
        ("model.visual.merger.ln_q.weight", "llm.model.visual.merger.ln_q.weight"),
        ("lm_head.weight", "llm.lm_head.weight"),
    ],
)
def test_a_saved_name_becomes_ours(saved: str, ours: str) -> None:
    assert uae_name(saved) == ours


@pytest.mark.parametrize("layers", [("projector.0", "projector.2"), ("model.projector.fc1", "model.projector.fc2")])
def test_the_two_layers_of_a_projector_are_found_by_their_order(layers: tuple[str, str]) -> None:
    saved = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    found = projector_names(["lm_head.weight", *reversed(saved)])
    assert [found[name] for name in saved] == [
        "projector.0.weight",
        "projector.0.bias",
        "projector.2.weight",
        "projector.2.bias",
    ]
