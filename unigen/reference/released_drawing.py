# SPDX-License-Identifier: Apache-2.0
"""Drawing as the released UniFork does: cached keys and values that are copied at every step, depths computed again and again.

All rows are padded on the left to one length and read, an unconditional one for each image; then every position goes through
the language model alone, and its depths through 1 + 2 + 3 + 4 slots of the depth transformer.
Legend: B images, R rows (conditional, then unconditional), L prompt columns, S positions, P depths, C feature size, D width,
K codes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from unigen.generation.next_position import NextPositionSettings
from unigen.models.unifork import UniFork
from unigen.reference.depth_decoding import decode_guided_slowly


@torch.no_grad()
def draw_positions_as_released(
    model: UniFork,
    codebook_KC: Tensor,
    prompts: Sequence[Sequence[int]],
    unconditional: Sequence[int],
    uniform_BSP: Tensor,
    settings: NextPositionSettings,
) -> Tensor:
    """The codes (B, S, P) that `generation.next_position.draw_positions` must give for the same numbers."""
    rows = [*prompts, *([unconditional] * len(prompts) if settings.has_guidance else [])]
    ids_RL, is_token_RL = _padded_left([[*row, model.config.start_of_image_id] for row in rows], model.device)
    uniform_BSP = uniform_BSP.to(model.device)
    cache, embeddings_RLD, drawn = DynamicCache(), model.embed(ids_RL), []
    for position in range(uniform_BSP.shape[1]):
        columns, new = is_token_RL.shape[1], embeddings_RLD.shape[1]
        place_C = torch.arange(columns, device=model.device)
        is_seen_RLC = is_token_RL[:, None] & (place_C <= place_C[-new:, None])
        is_seen_RLC = is_seen_RLC | (
            place_C == place_C[-new:, None]
        )  # padding sees itself, so that no softmax is empty
        positions_RL = place_C[-new:].expand(len(rows), -1)
        hidden_RLD = model.hidden_states(embeddings_RLD, positions_RL, is_seen_RLC[:, None], "generation", cache)
        codes_RP, summed_RC = decode_guided_slowly(
            model, codebook_KC, hidden_RLD[:, -1], uniform_BSP[:, position], settings
        )
        drawn.append(codes_RP[: len(prompts)])
        embeddings_RLD = model.model.mm_projector(summed_RC)[:, None]
        is_token_RL = F.pad(is_token_RL, (0, 1), value=True)
    return torch.stack(drawn, dim=1)


def _padded_left(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids (R, L), and which of them are tokens."""
    longest = max(map(len, rows))
    ids = [[0] * (longest - len(row)) + list(row) for row in rows]
    is_token = [[False] * (longest - len(row)) + [True] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(is_token, device=device)
