# SPDX-License-Identifier: Apache-2.0
"""What a UniFork costs a task: the parameters that its tokens go through, and the operations of one of them."""

from dataclasses import dataclass

import torch
from torch import nn

from unigen.models.cost import LanguageModelCost, count_parameters, measure_on_meta
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import Branch, UniForkConfig


@dataclass(frozen=True)
class BranchCost:
    """Of one branch, with the layers below it; the image tokenizer is left out."""

    parameters: int
    """Weights that its rows use."""
    flops_per_token: float
    """One forward pass over a token of a full row: a position that is drawn, with all its codes, or a word that is written."""


def unifork_costs(config: UniForkConfig) -> tuple[int, dict[Branch, BranchCost]]:
    """All parameters of a model, and the cost of each of its branches; no weights are made."""
    with torch.device("meta"):
        model = UniFork(config)
    return count_parameters(model), {branch: _branch_cost(model, branch) for branch in config.branches}


def depth_transformer_flops(model: UniFork) -> float:
    """One image through the depth transformer of a model on the meta device, teacher-forced."""
    sizes, positions = model.depth_transformer.sizes, model.config.num_image_codes
    hidden_MD = torch.empty(positions, sizes.hidden_size, device="meta")
    embeddings_MPC = torch.empty(positions, sizes.depth, sizes.code_channels, device="meta")
    return measure_on_meta(lambda: model.depth_transformer(hidden_MD, embeddings_MPC)).flops


def _branch_cost(model: UniFork, branch: Branch) -> BranchCost:
    config, inner = model.config, model.model
    parts: list[nn.Module] = [
        inner.embed_tokens,
        inner.mm_projector,
        *model.shared_layers,
        *model.branch_layers(branch),
    ]
    parts.append(model.branch_norm(branch))
    length, words = config.row_length, config.llm_config.vocab_size
    path = LanguageModelCost(config.path_config(branch))
    if branch == "understanding":
        assert model.lm_head is not None
        parts.append(model.lm_head)
        flops = path.forward_flops(length**2, length, length * words) / length
    else:
        parts.append(model.depth_transformer)
        flops = path.forward_flops(length**2, length, 0) / length
        flops += 2 * count_parameters(inner.mm_projector) + depth_transformer_flops(model) / config.num_image_codes
    return BranchCost(count_parameters(nn.ModuleList(parts)), flops)
