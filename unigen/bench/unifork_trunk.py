# SPDX-License-Identifier: Apache-2.0
"""UniFork's mixed batch: the shared layers once for rows of both tasks, against a pass of its own for each task.

The operations are the same, those of one trunk and of each row's own branch: what differs is how many rows a product has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unigen.bench.figures import Figure, Setting
from unigen.bench.forks import miniature_fork, random_fork
from unigen.bench.pairs import Expected, Pair
from unigen.data.batch import Batch, Sample, collate
from unigen.models.cost import LanguageModelCost
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import UniForkConfig
from unigen.reference.forked import hidden_states_in_two_passes, plain_qwen2
from unigen.sequence.layout import Document, text

FLOP_TOLERANCE = 0.01
LARGEST_DIFFERENCE = 1e-3
"""Of normed states, whose spread is 1."""


@dataclass(frozen=True)
class _Sizes:
    """Rows of each task, and positions of a row."""

    drawn: int
    read: int
    length: int


def measure(setting: Setting) -> Iterator[Figure]:
    """A miniature of 0.5B, forward; as many rows that are drawn as rows that are read, and three to one."""
    length = 64 if setting.is_quick else 512
    config = miniature_fork(is_quick=setting.is_quick)
    model, _ = random_fork(config, setting)
    for sizes in (_Sizes(4, 4, length), _Sizes(6, 2, length)):
        yield from _measure_sizes(model, sizes, setting)


def _measure_sizes(model: UniFork, sizes: _Sizes, setting: Setting) -> Iterator[Figure]:
    batch, is_generation_R = _rows(model, sizes, setting)
    arguments = (batch.input_ids_RL, batch.positions_RL, batch.visible, is_generation_R)
    plain = {branch: plain_qwen2(model, branch) for branch in model.config.branches}

    @torch.no_grad()
    def together() -> Tensor:
        return model(*arguments)

    pair = Pair(
        f"unifork_trunk/{sizes.drawn}_drawn_{sizes.read}_read",
        fast=together,
        twin=lambda: hidden_states_in_two_passes(model, *arguments, plain=plain),
        difference=lambda fast_RLD, twin_RLD: float((fast_RLD - twin_RLD).abs().max()),
        expected=Expected(*[_one_trunk_and_own_branches(model.config, sizes)] * 2),
    )
    yield from pair.figures(
        setting,
        flop_floor=1 - FLOP_TOLERANCE,
        time_floor=None,
        tolerance=LARGEST_DIFFERENCE,
        formula_tolerance=FLOP_TOLERANCE,
        note="of normed states",
    )


def _rows(model: UniFork, sizes: _Sizes, setting: Setting) -> tuple[Batch, Tensor]:
    """Rows of tokens, whose task is no matter of what is in them; the tasks take turns where they can."""
    generator = torch.Generator().manual_seed(setting.seed)
    num_rows = sizes.drawn + sizes.read
    ids_RL = torch.randint(model.config.llm_config.vocab_size, (num_rows, sizes.length), generator=generator)
    batch = collate([[Sample("", Document(0, (text(ids),)))] for ids in ids_RL.tolist()])
    return batch, torch.arange(num_rows) * sizes.drawn % num_rows < sizes.drawn


def _one_trunk_and_own_branches(config: UniForkConfig, sizes: _Sizes) -> float:
    total = 0.0
    for branch, rows in (("generation", sizes.drawn), ("understanding", sizes.read)):
        path = LanguageModelCost(config.path_config(branch))  # type: ignore[arg-type]  # a tuple's strings are str to mypy
        total += path.forward_flops(rows * sizes.length**2, rows * sizes.length, 0)
    return total
