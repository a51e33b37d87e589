# SPDX-License-Identifier: Apache-2.0
"""OpenMMLab's Mask2Former in transformers: every parameter finds its place, and every part computes the same."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.swin.modeling_swin import SwinPatchMerging

from tests.evaluation.geneval.judges import SMALL, small_mask2former
from unigen.errors import EvaluationError
from unigen.evaluation.geneval.detector import swin_small
from unigen.evaluation.geneval.mask2former_weights import (
    LOSS_WEIGHTS,
    UNUSED,
    deinterleaved,
    load_openmmlab,
    map_openmmlab,
)
from unigen.reference.mmdet_mask2former import MmdetMask2Former, MmdetSizes
from unigen.reference.mmdet_swin import PatchMerging

NAMES_OF_MMDET_2_28_2 = "2770df6dbae3053173fd7c11b8526ed21f6467e9866cc55c37ef5b20df2b64c2"
"""SHA-256 over the sorted lines `name shape` of the model that mmdet 2.28.2 builds from GenEval's configuration."""


@pytest.fixture(scope="module")
def plain() -> MmdetMask2Former:
    """OpenMMLab's layout with random numbers everywhere, norms and biases included; always the same, whatever ran before."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MmdetMask2Former(SMALL).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def mapped(plain: MmdetMask2Former) -> Any:
    model = small_mask2former()
    load_openmmlab(model, plain.state_dict())
    return model


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """Sides that are no multiple of a window at any stage, and an odd number of positions at one."""
    return torch.randn(2, 3, 224, 288, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def equal(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_reference_has_every_name_and_shape_of_mmdet() -> None:
    with torch.device("meta"):
        state = MmdetMask2Former(MmdetSizes()).state_dict()
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in state.items())
    assert len(lines) == 649
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == NAMES_OF_MMDET_2_28_2


def test_every_parameter_of_the_full_size_is_filled_exactly_once() -> None:
    from transformers import Mask2FormerForUniversalSegmentation

    with torch.device("meta"):
        target = Mask2FormerForUniversalSegmentation(swin_small()).state_dict()
        source = MmdetMask2Former(MmdetSizes()).state_dict()
    filled = map_openmmlab(source)  # raises where two go to one place
    assert {name: value.shape for name, value in filled.items()} == {
        name: value.shape for name, value in target.items() if name not in (*UNUSED, LOSS_WEIGHTS)
    }
    places = sum(value.numel() for name, value in source.items() if not name.endswith("relative_position_index"))
    assert sum(value.numel() for value in filled.values()) == places


def test_merging_patches_gives_the_same_only_with_its_channels_in_order() -> None:
    generator = torch.Generator().manual_seed(2)
    plain, here = PatchMerging(5), SwinPatchMerging(5)
    for parameter in plain.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    hidden_BHWC = torch.randn(2, 7, 6, 5, generator=generator)
    wanted = plain(hidden_BHWC).flatten(1, 2)
    here.load_state_dict(plain.state_dict())
    assert not torch.allclose(here(hidden_BHWC.flatten(1, 2), (7, 6)), wanted, atol=0.1)
    here.load_state_dict({name: deinterleaved(value) for name, value in plain.state_dict().items()})
    equal(here(hidden_BHWC.flatten(1, 2), (7, 6)), wanted)


def test_the_backbone_gives_the_same_at_every_stage(plain: MmdetMask2Former, mapped: Any, pixels: Tensor) -> None:
    maps = mapped.model.pixel_level_module.encoder(pixels).feature_maps
    for one, other in zip(maps, plain.backbone(pixels), strict=True):
        equal(one, other)


def test_the_pixel_decoder_gives_the_same_at_every_level(plain: MmdetMask2Former, mapped: Any, pixels: Tensor) -> None:
    maps = plain.backbone(pixels)
    levels, mask_features = plain.panoptic_head.pixel_decoder(maps)
    found = mapped.model.pixel_level_module.decoder(maps)
    equal(found.mask_features, mask_features)
    for one, other in zip(found.multi_scale_features, levels, strict=True):
        equal(one, other)


def test_a_decoder_layer_looks_at_the_image_first_and_then_among_the_queries(
    plain: MmdetMask2Former, mapped: Any
) -> None:
    generator = torch.Generator().manual_seed(4)
    query, place = (torch.randn(2, 5, 32, generator=generator) for _ in range(2))
    level, level_place = torch.randn(2, 12, 32, generator=generator), torch.randn(2, 12, 32, generator=generator)
    hidden = torch.rand(2, 5, 12, generator=generator) < 0.3
    wanted = plain.panoptic_head.transformer_decoder.layers[1](query, place, level, level_place, hidden)
    layer = mapped.model.transformer_module.decoder.layers[1]
    found = layer(
        query.transpose(0, 1),
        level_index=0,
        attention_mask=None,
        position_embeddings=[level_place.transpose(0, 1)],
        query_position_embeddings=place.transpose(0, 1),
        encoder_hidden_states=[level.transpose(0, 1)],
        encoder_attention_mask=hidden.repeat_interleave(SMALL.num_heads, dim=0),
    )[0]
    equal(found.transpose(0, 1), wanted)


def test_the_whole_detector_gives_the_same_classes_and_masks(
    plain: MmdetMask2Former, mapped: Any, pixels: Tensor
) -> None:
    classes, masks = plain(pixels)
    found = mapped(pixel_values=pixels)
    assert classes.std() > 0.1
    equal(found.class_queries_logits, classes)
    equal(found.masks_queries_logits, masks)


def test_a_checkpoint_of_another_architecture_is_refused_by_name(plain: MmdetMask2Former) -> None:
    state = plain.state_dict()
    wrong: list[tuple[dict[str, Tensor], str]] = [
        ({**state, "rpn_head.weight": torch.zeros(1)}, r"rpn_head\.weight is not known"),
        (
            {**state, "panoptic_head.cls_embed.bias": torch.zeros(134)},
            r"class_predictor\.bias is \(134,\), not \(81,\)",
        ),
        (
            {name: value for name, value in state.items() if "query_feat" not in name},
            "lacks 1 parameters.*queries_features",
        ),
        ({**state, "backbone.stages.9.blocks.0.norm1.bias": torch.zeros(1)}, "no place for.*layers.9"),
    ]
    for content, complaint in wrong:
        with pytest.raises(EvaluationError, match=complaint):
            load_openmmlab(small_mask2former(), content)
