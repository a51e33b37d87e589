# SPDX-License-Identifier: Apache-2.0
"""Greedy reading written plainly: one row at a time, the whole row computed again for every token.

Legend: L positions of the row, K feature slots, F vision width.
"""

import torch
from torch import Tensor

from unigen.data.batch import Batch
from unigen.models.unigen import UniGen


@torch.no_grad()
def write_text_slowly(
    model: UniGen,
    batch: Batch,
    features_KF: Tensor | None,
    stop_id: int,
    text_size: int,
    max_new_tokens: int,
) -> list[int]:
    """The tokens that `generation.autoregressive.write_text` must give for a batch of one row at temperature 0."""
    assert batch.input_ids_RL.shape[0] == 1
    ids = batch.input_ids_RL[0].tolist()
    is_open = batch.visible.open_RL[0].tolist()
    written: list[int] = []
    while len(written) < max_new_tokens:
        row = [*ids, *written]
        is_seen_LL = torch.tensor(
            [
                [column <= place or (column < len(is_open) and is_open[column]) for column in range(len(row))]
                for place in range(len(row))
            ]
        )
        positions_1L = torch.arange(len(row))[None]
        hidden_1LD = model(
            torch.tensor([row]), positions_1L, is_seen_LL[None, None], features_KF, batch.feature_slots_K
        )
        logits_V = model.output_embedding_VD @ hidden_1LD[0, -1]
        token = int(logits_V[:text_size].argmax())
        if token == stop_id:
            break
        written.append(token)
    return written
