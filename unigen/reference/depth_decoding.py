# SPDX-License-Identifier: Apache-2.0
"""The depth transformer decoded plainly: the slots up to a depth computed again for each depth (1 + 2 + 3 + 4 slots for 4).

Legend: M positions, P depths, D hidden size, C channels of a code embedding, K codes, B images, R rows of one position.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.generation.autoregressive import choose
from unigen.generation.next_position import NextPositionSettings
from unigen.models.depth_transformer import DepthTransformer
from unigen.models.unifork import UniFork


@torch.no_grad()
def decode_depths_slowly(
    model: DepthTransformer,
    hidden_MD: Tensor,
    embed: Callable[[Tensor], Tensor],
    choose_code: Callable[[Tensor, int], Tensor],
) -> tuple[Tensor, Tensor]:
    """Codes (M, P) and the sum (M, C) of their embeddings, as `DepthTransformer.decode` must give them."""
    embeddings_MPC = hidden_MD.new_zeros(hidden_MD.shape[0], model.sizes.depth, model.sizes.code_channels)
    codes = []
    for depth in range(model.sizes.depth):
        # The last embedding that is given is not read: slot `depth` sees those before it.
        states_MPW = model.states(hidden_MD, embeddings_MPC[:, : depth + 1])
        codes.append(choose_code(model.classifier_mlp.linear(states_MPW[:, -1]), depth))
        embeddings_MPC[:, depth] = embed(codes[-1])
    return torch.stack(codes, dim=1), embeddings_MPC.sum(1)


def decode_guided_slowly(
    model: UniFork, codebook_KC: Tensor, states_RD: Tensor, uniform_BP: Tensor, settings: NextPositionSettings
) -> tuple[Tensor, Tensor]:
    """Codes (R, P) and the sums of their embeddings (R, C) of one position, for B conditional rows and then, with guidance, B
    unconditional ones, which get the codes of the others."""
    num_images = len(uniform_BP)

    def choose_code(logits_RK: Tensor, depth: int) -> Tensor:
        logits_BK = logits_RK[:num_images]
        if settings.has_guidance:
            logits_BK = logits_RK[num_images:] + settings.guidance_scale * (logits_BK - logits_RK[num_images:])
        chosen_B = choose(logits_BK, settings.choice, uniform_BP[:, depth : depth + 1])
        return chosen_B.repeat(len(logits_RK) // num_images)

    return decode_depths_slowly(
        model.depth_transformer, states_RD, lambda codes: F.embedding(codes, codebook_KC), choose_code
    )
