# SPDX-License-Identifier: Apache-2.0
"""Greedy reading written plainly: one row at a time, the whole row and all its logits computed again for every token.

Legend: L positions of the row, V vocabulary, K feature slots, F vision width.
"""

import torch
from torch import Tensor

from unigen.data.batch import Batch
from unigen.generation.autoregressive import Reader


@torch.no_grad()
def write_text_slowly(
    model: Reader,
    batch: Batch,
    features_KF: Tensor | None,
    stop_id: int,
    text_size: int,
    max_new_tokens: int,
) -> list[int]:
    """The tokens that `generation.autoregressive.write_text` must give for a batch of one row at temperature 0."""
    assert batch.input_ids_RL.shape[0] == 1
    ids_1L, is_open_L = batch.input_ids_RL, batch.visible.open_RL[0]
    written: list[int] = []
    while len(written) < max_new_tokens:
        place_L = torch.arange(ids_1L.shape[1], device=ids_1L.device)
        is_seen_LL = (place_L[None, :] <= place_L[:, None]) | is_open_L[None, :]
        hidden_1LD = model(ids_1L, place_L[None], is_seen_LL[None, None], features_KF, batch.feature_slots_K)
        logits_LV = hidden_1LD[0] @ model.output_embedding_VD.T
        token = int(logits_LV[-1, :text_size].argmax())
        if token == stop_id:
            break
        written.append(token)
        ids_1L = torch.cat([ids_1L, ids_1L.new_tensor([[token]])], dim=1)
        is_open_L = torch.cat([is_open_L, is_open_L.new_zeros(1)])
    return written
