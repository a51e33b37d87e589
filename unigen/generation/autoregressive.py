# SPDX-License-Identifier: Apache-2.0
"""Writing text token by token, in batches, with cached keys and values.

Legend: B rows, L prompt columns, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.data.batch import Batch
from unigen.generation.cache import DecodingCache
from unigen.models.unigen import UniGen
from unigen.sequence.layout import PADDING


@dataclass(frozen=True)
class TextSettings:
    """How text is written; temperature 0 takes the most probable token."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with at least this probability."""


@torch.no_grad()
def write_text(
    model: UniGen,
    batch: Batch,
    features_KF: Tensor | None,
    stop_id: int,
    text_size: int,
    settings: TextSettings,
    seeds: list[int],
) -> list[list[int]]:
    """Continue every row of a batch that holds one document a row.

    Args:
        batch: prompts with their codes filled in, on the model's device.
        features_KF: vision features for `batch.feature_slots_K`.
        text_size: only ids below it are written.
        seeds: one a row; used when the temperature is above 0.
    Returns:
        new token ids of each row, without the stop token.
    """
    is_prompt_BL = batch.visible.documents_RL != PADDING
    lengths_B = is_prompt_BL.sum(dim=1)
    num_rows, width = is_prompt_BL.shape
    cache = DecodingCache(width + settings.max_new_tokens)
    hidden_BLD = model(
        batch.input_ids_RL, batch.positions_RL, batch.visible.dense(), features_KF, batch.feature_slots_K, cache=cache
    )
    last_BD = hidden_BLD[torch.arange(num_rows, device=hidden_BLD.device), lengths_B - 1]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    is_seen_BC = is_prompt_BL
    is_done_B = torch.zeros(num_rows, dtype=torch.bool, device=hidden_BLD.device)
    written: list[Tensor] = []
    for step in range(settings.max_new_tokens):
        logits_BV = F.linear(last_BD, model.output_embedding_VD[:text_size]).float()
        token_B = _choose(logits_BV, settings, generators).masked_fill(is_done_B, stop_id)
        written.append(token_B)
        is_done_B = is_done_B | (token_B == stop_id)
        if step + 1 == settings.max_new_tokens or bool(is_done_B.all()):
            break
        is_seen_BC = F.pad(is_seen_BC, (0, 1), value=True)
        last_BD = model(token_B[:, None], (lengths_B + step)[:, None], is_seen_BC[:, None, None], cache=cache)[:, 0]
    tokens = torch.stack(written, dim=1).tolist()
    return [row[: row.index(stop_id)] if stop_id in row else row for row in tokens]


def _choose(logits_BV: Tensor, settings: TextSettings, generators: list[torch.Generator]) -> Tensor:
    if settings.temperature == 0:
        return logits_BV.argmax(dim=-1)
    probs_BV = torch.softmax(_truncate(logits_BV / settings.temperature, settings), dim=-1)
    uniform_B1 = torch.stack([torch.rand(1, generator=generator) for generator in generators])
    # Exactly 0 would choose the first token even where its probability is 0.
    uniform_B1 = uniform_B1.clamp(min=torch.finfo(torch.float32).tiny).to(probs_BV.device)
    cumulative_BV = probs_BV.cumsum(-1)
    return torch.searchsorted(cumulative_BV, uniform_B1 * cumulative_BV[:, -1:])[:, 0].clamp(
        max=logits_BV.shape[-1] - 1
    )


def _truncate(logits_BV: Tensor, settings: TextSettings) -> Tensor:
    """Hide what top-k and top-p leave out; the most probable token always stays."""
    hidden = -torch.inf
    if settings.top_k:
        least_B1 = logits_BV.topk(min(settings.top_k, logits_BV.shape[-1]), dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, hidden)
    if settings.top_p < 1:
        ordered_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
        probs_BV = ordered_BV.softmax(-1)
        is_out_BV = probs_BV.cumsum(-1) - probs_BV >= settings.top_p
        is_out_BV[:, 0] = False
        logits_BV = logits_BV.masked_fill(torch.zeros_like(is_out_BV).scatter(-1, order_BV, is_out_BV), hidden)
    return logits_BV
