# SPDX-License-Identifier: Apache-2.0
"""The cost formulas against what torch counts: operations on meta tensors, parameters, bytes kept for the backward pass."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from unigen.config.folders import SHIPPED_CONFIGS
from unigen.models.cost import (
    LanguageModelCost,
    count_parameters,
    measure_on_meta,
    training_flops,
    vision_tower_flops,
)
from unigen.models.image_tokenizers.registry import build_image_tokenizer
from unigen.models.language import hidden_states, language_config, use_our_attention
from unigen.models.vision import VisionTower

VOCABULARY = 159_867


def _meta_qwen(config: Qwen2Config) -> Qwen2ForCausalLM:
    with torch.device("meta"):
        return Qwen2ForCausalLM(config)


def _flops(model: Qwen2ForCausalLM, length: int, num_logits: int) -> int:
    embeddings = torch.empty(1, length, model.config.hidden_size, device="meta")
    positions = torch.arange(length, device="meta")[None]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        hidden = hidden_states(model, embeddings, positions, None)
        model.lm_head(hidden[:, :num_logits])
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["Qwen2.5-0.5B-Instruct", "Qwen2.5-1.5B-Instruct", "Qwen2.5-7B-Instruct"])
def test_forward_flops_agree_with_the_flop_counter(name: str) -> None:
    config = language_config(SHIPPED_CONFIGS / name, VOCABULARY)
    config.num_hidden_layers = 2
    predicted = LanguageModelCost(config).forward_flops(387 * 387, 387, 100 * VOCABULARY)
    assert predicted == pytest.approx(_flops(_meta_qwen(config), 387, 100), rel=0.02)


@pytest.mark.parametrize(("tie", "expected"), [("keep", 1_555_896_320), (True, 1_555_896_320), (False, 1_801_452_032)])
def test_parameters_are_summed_over_the_model_itself(tie: bool, expected: int) -> None:
    config = language_config(SHIPPED_CONFIGS / "Qwen2.5-1.5B-Instruct", VOCABULARY, tie)
    assert count_parameters(_meta_qwen(config)) == expected
    config.num_hidden_layers = 27
    per_layer = expected - count_parameters(_meta_qwen(config))
    biases_and_norms = 1536 + 2 * 256 + 2 * 1536
    assert per_layer == LanguageModelCost(config).matrix_parameters // 27 + biases_and_norms


def test_training_flops_are_three_forwards_over_each_document_and_padding_is_free() -> None:
    config = language_config(SHIPPED_CONFIGS / "shapes-qwen2", 600)
    cost = LanguageModelCost(config)
    packed = torch.tensor([[0, 0, 0, 1, 1, -1, -1]])
    expected = 3 * cost.forward_flops(3 * 3 + 2 * 2, 5, 4 * 600)
    assert training_flops(config, packed, 4) == expected
    unpadded = torch.tensor([[0, 0, 0, 1, 1]])
    assert training_flops(config, unpadded, 4) == expected


def test_magvitv2_has_its_published_size_and_cost() -> None:
    tokenizer = build_image_tokenizer(SHIPPED_CONFIGS / "magvitv2")
    assert count_parameters(tokenizer) == 95_387_004
    pixels = torch.empty(1, 3, 256, 256, device="meta")
    assert measure_on_meta(lambda: tokenizer.encoder(pixels)).flops == pytest.approx(355e9, rel=0.01)


def test_vision_tower_flops_agree_with_the_flop_counter() -> None:
    tower = VisionTower.from_config(SHIPPED_CONFIGS / "siglip-so400m-patch14-384")
    pixels = torch.empty(1, 3, 384, 384, device="meta")
    counted = measure_on_meta(lambda: tower.encoder(pixel_values=pixels)).flops
    assert vision_tower_flops(tower) == pytest.approx(counted, rel=0.02)


def test_frozen_parameters_are_counted_apart() -> None:
    layer = torch.nn.Linear(3, 5)
    layer.bias.requires_grad_(False)
    assert (count_parameters(layer), count_parameters(layer, trained_only=True)) == (20, 15)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize(("width", "inner"), [(64, 160), (128, 512)])
def test_activation_bytes_agree_with_what_autograd_keeps(precision: str, width: int, inner: int) -> None:
    """On the CPU, whose attention keeps besides its inputs a mask, which is left out here, and repeats shared heads."""
    by_layers = [_kept_bytes_per_token(precision, width, inner, layers) for layers in (1, 3)]
    config = _small_config(width, inner, 1)
    predicted = LanguageModelCost(config).activation_bytes_per_token(precision, "none")
    assert predicted == pytest.approx((by_layers[1] - by_layers[0]) / 2, rel=0.03)


def test_recomputation_keeps_less_the_more_is_computed_again() -> None:
    cost = LanguageModelCost(language_config(SHIPPED_CONFIGS / "Qwen2.5-1.5B-Instruct", VOCABULARY))
    none, selective, full = (
        cost.activation_bytes_per_token("bfloat16", kind) for kind in ("none", "selective", "full")
    )
    assert full < selective < none
    assert full == 28 * 4 * 1536  # the float32 input of each layer


def _small_config(width: int, inner: int, layers: int) -> Qwen2Config:
    return use_our_attention(
        Qwen2Config(
            vocab_size=8,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
        )
    )


def _kept_bytes_per_token(precision: str, width: int, inner: int, layers: int) -> float:
    length = 96
    model = Qwen2ForCausalLM(_small_config(width, inner, layers))
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        is_activation = length in tensor.shape and tensor.shape[-2:] != (length, length)
        if is_activation and not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        embeddings = torch.randn(1, length, width, requires_grad=True)
        hidden_states(model, embeddings, torch.arange(length)[None], mask)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / length


def test_drawing_and_decoding_cost_what_the_formulas_of_1_5b_say() -> None:
    """70.6 TFLOP an image at 50 steps with guidance; 0.65 ms a token at 4.8 TB/s."""
    cost = LanguageModelCost(language_config(SHIPPED_CONFIGS / "Qwen2.5-1.5B-Instruct", VOCABULARY))
    assert cost.drawing_flops(128, 256, 8192, 50, rows=2, prompts=1) == pytest.approx(70.6e12, rel=0.01)
    assert cost.decoding_bytes(0, 1, VOCABULARY) / 4.8e12 == pytest.approx(0.65e-3, rel=0.01)
    assert cost.decoding_bytes(100, 3, 0) - cost.decoding_bytes(0, 3, 0) == 300 * 28_672
