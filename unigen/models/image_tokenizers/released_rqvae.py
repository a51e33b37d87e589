# SPDX-License-Identifier: Apache-2.0
"""Folders of VILA-U's tokenizer: either layout of config.json, and weights without those that are never used or stand twice.

Layouts: the tokenizer's fields alone (`rqvaesiglip_model`), or under `rqvaesiglip` beside those of a depth transformer
(`rqvaesigliptransformer_model`, VILA-U's own and the one that UniFork puts in its place), which are not read here.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unigen.config.folders import find_config
from unigen.errors import CheckpointError, ConfigError
from unigen.models.image_tokenizers.rqvae_siglip import RqVaeSiglipConfig
from unigen.models.vision import vision_config
from unigen.models.weights import read_config, read_weights

OWN_TYPE = "rqvae_siglip"
PREFIX = "rqvaesiglip."
"""Before every name of the tokenizer in a folder that holds a depth transformer too."""
_VISION = "siglip_model.vision_model."
_CODEBOOK = re.compile(r"quantizer\.codebooks\.(\d+)\.weight")


def rqvae_sizes(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a config.json of any layout -> the fields of RqVaeSiglipConfig; what it leaves out keeps its default.

    Raises:
        ConfigError: a codebook for each depth, or a vision encoder that the codebook does not fit.
        CheckpointError: a SigLIP model whose sizes nothing here says.
    """
    if content.get("model_type") == OWN_TYPE:
        return content
    released = content.get("rqvaesiglip", content)
    if not released.get("shared_codebook", True):
        raise ConfigError("rqvaesiglip.shared_codebook is false: only one codebook for all depths is supported")
    sizes: dict[str, Any] = {}
    if "n_embed" in released:
        sizes["codebook_size"] = released["n_embed"]
    if "code_shape" in released:
        sizes["depth"] = released["code_shape"][-1]
    name = released.get("pretrained_model")
    if name:
        siglip = vision_config(find_config(name))
        channels = released.get("embed_dim", siglip.hidden_size)
        if siglip.hidden_size != channels:
            raise ConfigError(
                f"rqvaesiglip.embed_dim is {channels}, but the features of {name} have {siglip.hidden_size}"
            )
        sizes["siglip_config"] = siglip.to_dict()
    return sizes | _decoder_sizes(released.get("ddconfig", {}))


def rqvae_weights(folder: Path) -> dict[str, Tensor]:
    """The tokenizer's weights by our names.

    Raises:
        CheckpointError: an unreadable file, or codebooks of the depths that differ.
    """
    num_layers = _num_layers(read_config(folder))

    def is_wanted(name: str) -> bool:
        return own_name(name.removeprefix(PREFIX), num_layers)

    found = {name.removeprefix(PREFIX): tensor for name, tensor in read_weights(folder, is_wanted).items()}
    return with_one_codebook(found, folder)


def own_name(name: str, num_layers: int) -> bool:
    """Whether a weight is one that the tokenizer uses; `num_layers` are those of the whole vision encoder."""
    if name.startswith(_VISION):
        last = f"{_VISION}encoder.layers.{num_layers - 1}."
        is_inside = name.startswith((f"{_VISION}embeddings.", f"{_VISION}encoder.layers."))
        return is_inside and not name.startswith(last) and not name.endswith("position_ids")
    return name.startswith(("decoder.", "post_quant_conv.")) or _CODEBOOK.fullmatch(name) is not None


def with_one_codebook(weights: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The weights with the codebook under the name of depth 0 alone; released files have it once a depth.

    Raises:
        CheckpointError: the depths have different codebooks.
    """
    codebooks = {name: tensor for name, tensor in weights.items() if _CODEBOOK.fullmatch(name)}
    rest = {name: tensor for name, tensor in weights.items() if name not in codebooks}
    if not codebooks:
        return rest
    first = codebooks[min(codebooks)]
    for name, tensor in codebooks.items():
        if not torch.equal(tensor, first):
            raise CheckpointError(
                f"{name} in {source} is not {min(codebooks)}: only one codebook for all depths is supported"
            )
    return {**rest, "quantizer.codebooks.0.weight": first}


def _num_layers(content: dict[str, Any]) -> int:
    """Layers of the whole vision encoder that a config.json speaks of."""
    return RqVaeSiglipConfig.from_dict(rqvae_sizes(content)).siglip_config.num_hidden_layers


def _decoder_sizes(released: dict[str, Any]) -> dict[str, Any]:
    names = {
        "ch": "base_channels",
        "ch_mult": "channel_multipliers",
        "num_res_blocks": "res_blocks",
        "attn_resolutions": "attention_resolutions",
        "z_channels": "latent_channels",
        "out_ch": "image_channels",
        "resolution": "resolution",
    }
    return {ours: released[theirs] for theirs, ours in names.items() if theirs in released}
