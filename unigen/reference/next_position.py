# SPDX-License-Identifier: Apache-2.0
"""Drawing position by position written plainly: image by image, whole rows computed again for every position.

Legend: B images, S positions, P depths, C feature size, K codes, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.generation.autoregressive import choose
from unigen.generation.next_position import NextPositionSettings
from unigen.models.unifork import UniFork
from unigen.reference.depth_decoding import decode_depths_slowly


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
            codes_P, summed_C = _decode(model, codebook_KC, states, uniform_P, settings)
            found.append(codes_P)
            features.append(summed_C)
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


def _decode(
    model: UniFork, codebook_KC: Tensor, states_RD: Tensor, uniform_P: Tensor, settings: NextPositionSettings
) -> tuple[Tensor, Tensor]:
    def choose_code(logits_RK: Tensor, depth: int) -> Tensor:
        logits_1K = logits_RK[:1]
        if settings.has_guidance:
            logits_1K = logits_RK[1:] + settings.guidance_scale * (logits_RK[:1] - logits_RK[1:])
        return choose(logits_1K, settings.choice, uniform_P[None, depth : depth + 1]).expand(len(logits_RK))

    codes_RP, summed_RC = decode_depths_slowly(
        model.depth_transformer, states_RD, lambda codes: F.embedding(codes, codebook_KC), choose_code
    )
    return codes_RP[0], summed_RC[0]
