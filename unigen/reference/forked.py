# SPDX-License-Identifier: Apache-2.0
"""UniFork as two plain Qwen2 models that share nothing but the values of their weights: one pass a task, dense masks.

Legend: R rows, L positions, D width, K feature slots, F feature size.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from unigen.models.language import hidden_states, use_our_attention
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import Branch
from unigen.sequence.visibility import Visible


def plain_qwen2(model: UniFork, branch: Branch) -> Qwen2ForCausalLM:
    """A Qwen2 of the shared layers and those of a branch, with its norm (and the model's output embedding, if it has one)."""
    plain = Qwen2ForCausalLM(use_our_attention(model.config.path_config(branch)))
    plain.model.embed_tokens.load_state_dict(model.model.embed_tokens.state_dict())
    plain.model.norm.load_state_dict(model.branch_norm(branch).state_dict())
    layers = [*model.shared_layers, *model.branch_layers(branch)]
    for ours, theirs in zip(plain.model.layers, layers, strict=True):
        ours.load_state_dict(theirs.state_dict())
    if model.lm_head is not None:
        plain.lm_head.load_state_dict(model.lm_head.state_dict())
    return plain.eval()


@torch.no_grad()
def hidden_states_in_two_passes(
    model: UniFork,
    input_ids_RL: Tensor,
    positions_RL: Tensor,
    visible: Visible,
    is_generation_R: Tensor,
    features_KF: Tensor | None = None,
    feature_slots_K: Tensor | None = None,
    plain: Mapping[Branch, Qwen2ForCausalLM] | None = None,
) -> Tensor:
    """What `UniFork.forward` must give (R, L, D): the rows of each task through a model of their own.

    Args:
        plain: those models, where they are there already; see `plain_qwen2`.
    """
    embeddings_RLD = model.embed(input_ids_RL, features_KF, feature_slots_K)
    found_RLD = torch.empty_like(embeddings_RLD)
    for branch in model.config.branches:
        is_mine_R = is_generation_R == (branch == "generation")
        if is_mine_R.any():
            own, mask = plain[branch] if plain else plain_qwen2(model, branch), visible.dense()[is_mine_R]
            found_RLD[is_mine_R] = hidden_states(own, embeddings_RLD[is_mine_R], positions_RL[is_mine_R], mask)
    return found_RLD
