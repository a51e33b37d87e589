# SPDX-License-Identifier: Apache-2.0
"""The depth transformer decoded plainly: the slots up to a depth computed again for each depth (1 + 2 + 3 + 4 slots for 4).

Legend: M positions, P depths, D hidden size, C channels of a code embedding, K codes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unigen.models.depth_transformer import DepthTransformer


@torch.no_grad()
def decode_depths_slowly(
    model: DepthTransformer,
    hidden_MD: Tensor,
    embed: Callable[[Tensor], Tensor],
    choose: Callable[[Tensor, int], Tensor],
) -> tuple[Tensor, Tensor]:
    """Codes (M, P) and the sum (M, C) of their embeddings, as `DepthTransformer.decode` must give them."""
    embeddings_MPC = hidden_MD.new_zeros(hidden_MD.shape[0], model.sizes.depth, model.sizes.code_channels)
    codes = []
    for depth in range(model.sizes.depth):
        # The last embedding that is given is not read: slot `depth` sees those before it.
        states_MPW = model.states(hidden_MD, embeddings_MPC[:, : depth + 1])
        codes.append(choose(model.classifier_mlp.linear(states_MPW[:, -1]), depth))
        embeddings_MPC[:, depth] = embed(codes[-1])
    return torch.stack(codes, dim=1), embeddings_MPC.sum(1)
