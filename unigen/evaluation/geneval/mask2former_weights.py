# SPDX-License-Identifier: Apache-2.0
"""GenEval's detector, OpenMMLab's Mask2Former, as the transformers model of the same architecture.

The same numbers are laid out differently. Most only have another name. Besides: query, key and value are one matrix there and
three here (in Swin, and among the queries); where Swin merges four patches their channels are interleaved there and patch after
patch here; a decoder layer's attention over the image is `attentions.0` there, that among the queries `attentions.1`. The pixel
decoder takes its inputs from the lowest resolution on in both. The other layout is `unigen/reference/mmdet_mask2former.py`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from unigen.errors import EvaluationError

if TYPE_CHECKING:
    from transformers import Mask2FormerForUniversalSegmentation

UNUSED = (
    "model.pixel_level_module.encoder.swin.layernorm.weight",
    "model.pixel_level_module.encoder.swin.layernorm.bias",
)
"""Parameters of the transformers model that no output depends on, and that no checkpoint of OpenMMLab has."""
LOSS_WEIGHTS = "criterion.empty_weight"
"""A constant of training."""

_IGNORED = re.compile(r"\.relative_position_index$")  # follows from the window's size
_SWIN = "model.pixel_level_module.encoder."
_PIXELS = "model.pixel_level_module.decoder."
_QUERIES = "model.transformer_module."

# A part of OpenMMLab's name and what it is called here; the first that fits the beginning is taken, `(\d+)` is kept.
_BEGINNINGS = (
    (r"backbone\.patch_embed\.projection", _SWIN + "swin.embeddings.patch_embeddings.projection"),
    (r"backbone\.patch_embed\.norm", _SWIN + "swin.embeddings.norm"),
    (r"backbone\.stages\.(\d+)\.downsample", _SWIN + r"swin.encoder.layers.\1.downsample"),
    (r"backbone\.stages\.(\d+)\.blocks\.(\d+)", _SWIN + r"swin.encoder.layers.\1.blocks.\2"),
    (r"panoptic_head\.pixel_decoder\.input_convs\.(\d+)\.conv", _PIXELS + r"input_projections.\1.0"),
    (r"panoptic_head\.pixel_decoder\.input_convs\.(\d+)\.gn", _PIXELS + r"input_projections.\1.1"),
    (r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)", _PIXELS + r"encoder.layers.\1"),
    (r"panoptic_head\.pixel_decoder\.level_encoding\.weight", _PIXELS + "level_embed"),
    (r"panoptic_head\.pixel_decoder\.lateral_convs\.0\.conv", _PIXELS + "adapter_1.0"),
    (r"panoptic_head\.pixel_decoder\.lateral_convs\.0\.gn", _PIXELS + "adapter_1.1"),
    (r"panoptic_head\.pixel_decoder\.output_convs\.0\.conv", _PIXELS + "layer_1.0"),
    (r"panoptic_head\.pixel_decoder\.output_convs\.0\.gn", _PIXELS + "layer_1.1"),
    (r"panoptic_head\.pixel_decoder\.mask_feature", _PIXELS + "mask_projection"),
    (r"panoptic_head\.transformer_decoder\.layers\.(\d+)", _QUERIES + r"decoder.layers.\1"),
    (r"panoptic_head\.transformer_decoder\.post_norm", _QUERIES + "decoder.layernorm"),
    (r"panoptic_head\.query_embed", _QUERIES + "queries_embedder"),
    (r"panoptic_head\.query_feat", _QUERIES + "queries_features"),
    (r"panoptic_head\.level_embed", _QUERIES + "level_embed"),
    (r"panoptic_head\.cls_embed", "class_predictor"),
    (r"panoptic_head\.mask_embed\.0", _QUERIES + "decoder.mask_predictor.mask_embedder.0.0"),
    (r"panoptic_head\.mask_embed\.2", _QUERIES + "decoder.mask_predictor.mask_embedder.1.0"),
    (r"panoptic_head\.mask_embed\.4", _QUERIES + "decoder.mask_predictor.mask_embedder.2.0"),
)
_STAGE_NORM = re.compile(r"backbone\.norm(\d+)")  # counted from 0 there and from 1 here

# What the rest of a name becomes, by the kind of layer that it belongs to.
_ENDINGS = {
    _SWIN: {
        ".norm1": ".layernorm_before",
        ".norm2": ".layernorm_after",
        ".ffn.layers.0.0": ".mlp.fc1",
        ".ffn.layers.1": ".mlp.fc2",
        ".attn.w_msa.proj": ".attention.o_proj",
        ".attn.w_msa.relative_position_bias_table": ".attention.relative_position_bias.relative_position_bias_table",
        ".attn.w_msa.qkv": ".attention.{qkv}_proj",
    },
    _PIXELS: {
        ".attentions.0": ".self_attn",
        ".norms.0": ".self_attn_layer_norm",
        ".norms.1": ".final_layer_norm",
        ".ffns.0.layers.0.0": ".fc1",
        ".ffns.0.layers.1": ".fc2",
    },
    _QUERIES: {
        ".attentions.0.attn": ".cross_attn",
        ".attentions.1.attn.in_proj_": ".self_attn.{qkv}_proj.",
        ".attentions.1.attn.out_proj": ".self_attn.out_proj",
        ".norms.0": ".cross_attn_layer_norm",
        ".norms.1": ".self_attn_layer_norm",
        ".norms.2": ".final_layer_norm",
        ".ffns.0.layers.0.0": ".fc1",
        ".ffns.0.layers.1": ".fc2",
    },
}


def load_openmmlab(model: "Mask2FormerForUniversalSegmentation", state: Mapping[str, Tensor]) -> None:
    """Fill a model from an OpenMMLab state dict; on the meta device the model takes the tensors as they are.

    Raises:
        EvaluationError: the state dict has another architecture: a name or a shape does not fit, or one is missing.
    """
    target = {name: value for name, value in model.state_dict().items() if name != LOSS_WEIGHTS and name not in UNUSED}
    mapped = map_openmmlab(state)
    for name, value in mapped.items():
        if name not in target:
            raise EvaluationError(f"the detector's checkpoint is of another architecture: there is no place for {name}")
        if value.shape != target[name].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(target[name].shape)}"
            raise EvaluationError(f"the detector's checkpoint is of another architecture: {name} is {shapes}")
    missing = [name for name in target if name not in mapped]
    if missing:
        raise EvaluationError(f"the detector's checkpoint lacks {len(missing)} parameters, the first is {missing[0]}")
    model.load_state_dict(mapped, strict=False)


def map_openmmlab(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by the names, and in the orders, of the transformers model.

    Raises:
        EvaluationError: an unknown name, or two that would go to one place.
    """
    mapped: dict[str, Tensor] = {}
    for name, value in state.items():
        if _IGNORED.search(name):
            continue
        for target, part in _placed(name, value):
            if target in mapped:
                raise EvaluationError(f"the detector's checkpoint fills {target} twice, the second time from {name}")
            mapped[target] = part
    return mapped


def deinterleaved(value: Tensor) -> Tensor:
    """Inputs of a patch merging, the last dimension: from channel after channel, each with its four patches row by row, to
    patch after patch, column by column."""
    channels_by_patch = value.unflatten(-1, (-1, 2, 2))  # channel, row, column
    return channels_by_patch.movedim(-3, -1).transpose(-3, -2).flatten(-3).contiguous()


def _placed(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Where a tensor goes: one place, or three for query, key and value."""
    target = _renamed(name)
    if ".downsample." in name:
        value = deinterleaved(value)
    if "{qkv}" not in target:
        yield target, value
        return
    for letter, part in zip("qkv", value.chunk(3), strict=True):
        yield target.replace("{qkv}", letter), part.clone()


def _renamed(name: str) -> str:
    stage = _STAGE_NORM.match(name)
    if stage:
        return f"{_SWIN}hidden_states_norms.stage{int(stage.group(1)) + 1}{name[stage.end() :]}"
    for pattern, replacement in _BEGINNINGS:
        found = re.match(pattern + r"(?=\.|$)", name)
        if found:
            return found.expand(replacement) + _ending(found.expand(replacement), name[found.end() :])
    raise EvaluationError(f"the detector's checkpoint is of another architecture: {name} is not known")


def _ending(beginning: str, rest: str) -> str:
    for room, endings in _ENDINGS.items():
        for there, here in endings.items():
            if beginning.startswith(room) and rest.startswith(there):
                return here + rest[len(there) :]
    return rest
