# SPDX-License-Identifier: Apache-2.0
"""What a model makes of a text or of an image on its own, layer by layer: states pooled over the positions of that modality.

Legend: R rows, L positions, P places between layers (before the first, after each), D width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unigen.data.batch import Sample
from unigen.errors import ConfigError
from unigen.generation.pipeline import in_batches
from unigen.sequence.layout import Document, Kind, text


@dataclass(frozen=True)
class PooledRow:
    """A row, and the positions over which its states are averaged."""

    sample: Sample
    positions: Sequence[int]


def text_row(token_ids: Sequence[int], positions: Sequence[int]) -> PooledRow:
    """A row of text alone, of which a part is pooled."""
    return PooledRow(Sample("", Document(0, (text(token_ids),))), positions)


def image_row(sample: Sample) -> PooledRow:
    """A row about images, pooled over their codes or features."""
    kinds = [segment.kind for segment in sample.document.segments for _ in range(segment.length)]
    return PooledRow(sample, [position for position, kind in enumerate(kinds) if kind is not Kind.TEXT])


@torch.no_grad()
def pooled_states(
    rows: Iterable[PooledRow],
    batch_size: int,
    layers: Sequence[nn.Module],
    read: Callable[[list[Sample]], object],
) -> Tensor:
    """Mean states (R, P, D) in float32, on the CPU.

    Args:
        layers: of the model, in the order in which `read` runs them: each once, its states first among what it takes and gives.
        read: one forward pass over samples, one a row.
    """
    found = [_pooled_batch(batch, layers, read) for batch in in_batches(rows, batch_size)]
    return torch.cat(found)


def require_way(way: str, ways: Sequence[str]) -> None:
    """Raises ConfigError for a way by which a model takes nothing in."""
    if way not in ways:
        raise ConfigError(f"the model takes nothing in by {way!r}; choose from {', '.join(ways) or 'none'}")


def _pooled_batch(
    batch: Sequence[PooledRow], layers: Sequence[nn.Module], read: Callable[[list[Sample]], object]
) -> Tensor:
    means: list[Tensor] = []

    def keep(states_RLD: Tensor) -> None:
        rows = zip(states_RLD, batch, strict=True)
        means.append(torch.stack([states_LD[list(row.positions)].float().mean(dim=0) for states_LD, row in rows]))

    def before(_: nn.Module, given: tuple[Any, ...]) -> None:
        keep(given[0])

    def after(_: nn.Module, __: tuple[Any, ...], states_RLD: Tensor) -> None:
        keep(states_RLD)

    hooks = [layers[0].register_forward_pre_hook(before), *(layer.register_forward_hook(after) for layer in layers)]
    try:
        read([row.sample for row in batch])
    finally:
        for hook in hooks:
            hook.remove()
    assert len(means) == len(layers) + 1, "a layer was not run, or more than once"
    return torch.stack(means, dim=1).cpu()
