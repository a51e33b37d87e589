# SPDX-License-Identifier: Apache-2.0
"""Drawing position by position written plainly: image by image, whole rows computed again for every position.

Legend: B images, S positions, P depths, C feature size, K codes, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unigen.generation.next_position import NextPositionSettings
from unigen.models.unifork import UniFork
from unigen.reference.depth_decoding import decode_guided_slowly


@torch.no_grad()
def draw_positions_slowly(
    model: UniFork,
    codebook_KC: Tensor,
    prompts: Sequence[Sequence[int]],
    unconditional: Sequence[int],
    uniform_BSP: Tensor,
    settings: NextPositionSettings,
) -> Tensor:
    """The codes (B, S, P) that `generation.next_position.draw_positions` must give for the same numbers."""
    images = []
    for prompt, uniform_SP in zip(prompts, uniform_BSP, strict=True):
        rows = [list(prompt), list(unconditional)] if settings.has_guidance else [list(prompt)]
        features: list[Tensor] = []
        found = []
        for uniform_P in uniform_SP:
            states = torch.stack([_last_state(model, row, features) for row in rows])
            codes_RP, summed_RC = decode_guided_slowly(model, codebook_KC, states, uniform_P[None], settings)
            found.append(codes_RP[0])
            features.append(summed_RC[0])
        images.append(torch.stack(found))
    return torch.stack(images)


def _last_state(model: UniFork, prompt: list[int], features: list[Tensor]) -> Tensor:
    ids = torch.tensor([[*prompt, model.config.start_of_image_id]])
    words_1LD = model.embed(ids)
    image_1ND = model.model.mm_projector(torch.stack(features))[None] if features else words_1LD[:, :0]
    row_1LD = torch.cat([words_1LD, image_1ND], dim=1)
    length = row_1LD.shape[1]
    causal = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    return model.hidden_states(row_1LD, torch.arange(length)[None], causal, "generation")[0, -1]
