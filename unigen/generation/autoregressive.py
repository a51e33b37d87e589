# SPDX-License-Identifier: Apache-2.0
"""Writing text token by token, in batches, with cached keys and values.

Legend: B rows, L prompt columns, T columns behind a shared beginning, C columns of the cache, D width, S steps, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.data.batch import Batch
from unigen.generation.cache import DecodingCache, Layers
from unigen.generation.steps import Decoding, step_runner
from unigen.sequence.layout import PADDING


class Reader(Protocol):
    """What reads rows: the arguments of UniGen's forward pass, and an output embedding where it writes text."""

    def __call__(
        self,
        input_ids_RL: Tensor,
        positions_RL: Tensor,
        mask: Any,
        features_KF: Tensor | None = None,
        feature_slots_K: Tensor | None = None,
        cache: Any = None,
    ) -> Any:
        """Hidden states (R, L, D)."""

    @property
    def output_embedding_VD(self) -> Tensor:
        """Over the whole vocabulary."""


@dataclass(frozen=True)
class TextSettings:
    """How text is written; temperature 0 takes the most probable token."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with at least this probability."""


@dataclass(frozen=True)
class ReadRows:
    """Rows that were read: what more text is read or written behind."""

    cache: DecodingCache
    is_column_BL: Tensor
    """Which of the columns that were read belong to a row; the others are padding."""
    hidden_BTD: Tensor
    """States of the columns that were read last."""
    ends_B: Tensor
    """Which of those is each row's last one."""

    @property
    def lengths_B(self) -> Tensor:
        return self.is_column_BL.sum(dim=1)

    @property
    def last_BD(self) -> Tensor:
        return self.last_states([1] * len(self.ends_B))

    def last_states(self, counts: Sequence[int]) -> Tensor:
        """The last `counts[b]` states of each row b, in order, (sum of counts, D)."""
        places = [(row, back) for row, count in enumerate(counts) for back in reversed(range(count))]
        rows_M, backs_M = torch.tensor(places, device=self.ends_B.device).T
        return self.hidden_BTD[rows_M, self.ends_B[rows_M] - backs_M]


@torch.no_grad()
def read_rows(model: Reader, batch: Batch, features_KF: Tensor | None, num_new: int = 0) -> ReadRows:
    """Read a batch that holds one document a row.

    Args:
        batch: with its codes filled in, on the model's device.
        features_KF: vision features for `batch.feature_slots_K`.
        num_new: tokens to be written behind the rows.
    """
    is_column_BL = batch.visible.documents_RL != PADDING
    cache = DecodingCache(is_column_BL.shape[1] + num_new)
    hidden_BLD = model(
        batch.input_ids_RL, batch.positions_RL, batch.visible.dense(), features_KF, batch.feature_slots_K, cache=cache
    )
    return ReadRows(cache, is_column_BL, hidden_BLD, is_column_BL.sum(dim=1) - 1)


@torch.no_grad()
def read_behind(
    model: Reader, rows: ReadRows, index_B: Tensor, texts: Sequence[Sequence[int]], num_new: int = 0
) -> ReadRows:
    """Read a text behind row `index_B[b]` for each b: what several rows begin with is read once.

    Args:
        texts: token ids, at least one a row.
        num_new: tokens to be written behind the rows.
    """
    width, longest = rows.is_column_BL.shape[1], max(map(len, texts))
    ids_BT = torch.stack([F.pad(torch.tensor(ids), (0, longest - len(ids))) for ids in texts]).to(index_B.device)
    lengths_B = torch.tensor([len(ids) for ids in texts], device=index_B.device)
    place_T = torch.arange(longest, device=index_B.device)
    is_column_BL = torch.cat([rows.is_column_BL[index_B], place_T < lengths_B[:, None]], dim=1)
    num_columns = width + longest + num_new
    place_C = torch.arange(num_columns, device=index_B.device)
    is_seen_BTC = F.pad(is_column_BL, (0, num_new))[:, None, :] & (place_C <= width + place_T[:, None])
    # A row of padding sees its own beginning, so that none of the softmax is empty.
    cache = rows.cache.rows(index_B, num_columns, width + place_T)
    positions_BT = rows.lengths_B[index_B][:, None] + place_T
    hidden_BTD = model(ids_BT, positions_BT, is_seen_BTC[:, None], cache=cache)
    return ReadRows(cache, is_column_BL, hidden_BTD, lengths_B - 1)


def write_text(
    model: Reader,
    batch: Batch,
    features_KF: Tensor | None,
    stop_id: int,
    text_size: int,
    settings: TextSettings,
    seeds: list[int],
    decoding: Decoding = "auto",
) -> list[list[int]]:
    """Continue every row of a batch that holds one document a row; see `read_rows` and `write_behind`."""
    rows = read_rows(model, batch, features_KF, settings.max_new_tokens)
    return write_behind(model, rows, stop_id, text_size, settings, seeds, decoding)


@torch.no_grad()
def write_behind(
    model: Reader,
    rows: ReadRows,
    stop_id: int,
    text_size: int,
    settings: TextSettings,
    seeds: list[int],
    decoding: Decoding = "auto",
) -> list[list[int]]:
    """Continue every row.

    Args:
        rows: read with room for `settings.max_new_tokens`.
        text_size: only ids below it are written.
        seeds: one a row; used when the temperature is above 0.
        decoding: how the step of one token is run.
    Returns:
        new token ids of each row, without the stop token.
    """
    lengths_B, device = rows.lengths_B, rows.ends_B.device
    stop_B = torch.full_like(lengths_B, stop_id)
    uniform_SB1 = token_numbers(seeds, settings).to(device)
    token_B = choose(text_logits(model, rows.last_BD, text_size), settings, uniform_SB1[0])
    written, is_done_B = [token_B], token_B == stop_id
    fixed = (model, settings, text_size, rows.cache.layers, rows.is_column_BL, lengths_B, stop_B)
    advance = step_runner(_write_next, fixed, decoding, device, settings.max_new_tokens - 1)
    for step_1, uniform_B1 in zip(
        torch.arange(settings.max_new_tokens - 1, device=device)[:, None], uniform_SB1[1:], strict=True
    ):
        if bool(is_done_B.all()):
            break
        token_B, is_done_B = advance(token_B, is_done_B, step_1, uniform_B1)
        written.append(token_B)
    tokens = torch.stack(written, dim=1).tolist()
    return [row[: row.index(stop_id)] if stop_id in row else row for row in tokens]


def _write_next(
    model: Reader,
    settings: TextSettings,
    text_size: int,
    layers: Layers,
    is_column_BL: Tensor,
    lengths_B: Tensor,
    stop_B: Tensor,
    token_B: Tensor,
    is_done_B: Tensor,
    step_1: Tensor,
    uniform_B1: Tensor,
) -> tuple[Tensor, Tensor]:
    """The token after `token_B`, which is the one that step `step_1` writes into the cache; and which rows have ended."""
    width, num_columns = is_column_BL.shape[1], layers[0][0].shape[2]
    columns_C = torch.arange(num_columns, device=token_B.device)
    is_seen_BC = F.pad(is_column_BL, (0, num_columns - width)) | ((columns_C >= width) & (columns_C <= width + step_1))
    cache = DecodingCache(num_columns, layers, width + step_1)
    hidden_B1D = model(token_B[:, None], (lengths_B + step_1)[:, None], is_seen_BC[:, None, None], cache=cache)
    chosen_B = choose(text_logits(model, hidden_B1D[:, 0], text_size), settings, uniform_B1)
    next_B = torch.where(is_done_B, stop_B, chosen_B)
    return next_B, is_done_B | (next_B == stop_B)


def text_logits(model: Reader, hidden_BD: Tensor, text_size: int) -> Tensor:
    """Logits (B, V) in float32 over the ids of text alone."""
    return F.linear(hidden_BD, model.output_embedding_VD[:text_size]).float()


def token_numbers(seeds: list[int], settings: TextSettings) -> Tensor:
    """Numbers in (0, 1) for every step and row, (S, B, 1); exactly 0 would choose a token of probability 0."""
    if settings.temperature == 0:
        return torch.zeros(settings.max_new_tokens, len(seeds), 1)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    rows = [torch.rand(settings.max_new_tokens, 1, generator=generator) for generator in generators]
    return torch.stack(rows, dim=1).clamp(min=torch.finfo(torch.float32).tiny)


def choose(logits_BV: Tensor, settings: TextSettings, uniform_B1: Tensor) -> Tensor:
    """One class of each row, by a number in (0, 1) each."""
    if settings.temperature == 0:
        return logits_BV.argmax(dim=-1)
    probs_BV = torch.softmax(_truncate(logits_BV / settings.temperature, settings), dim=-1)
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
