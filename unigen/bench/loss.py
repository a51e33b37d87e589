# SPDX-License-Identifier: Apache-2.0
"""The loss in chunks, against the whole matrix of logits: the same sum and gradients, a fraction of the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unigen.bench.counting import peak_bytes
from unigen.bench.figures import Figure, Setting
from unigen.bench.models import FULL_VOCABULARY, miniature_config
from unigen.objectives.cross_entropy import LOGITS_PER_CHUNK, linear_cross_entropy
from unigen.reference.losses import linear_cross_entropy_at_once

MEMORY_LIMIT = 0.25
TOLERANCE = 1e-5


def measure(setting: Setting) -> Iterator[Figure]:
    """Forward and backward at the full vocabulary and the width of the miniature, float32."""
    width = miniature_config(FULL_VOCABULARY).hidden_size
    if setting.is_quick:
        sizes, chunk = (512, width // 8, FULL_VOCABULARY // 8), LOGITS_PER_CHUNK // 64
    else:
        sizes, chunk = (3072, width, FULL_VOCABULARY), LOGITS_PER_CHUNK
    yield from measure_sizes(sizes, chunk, setting)


def measure_sizes(sizes: tuple[int, int, int], logits_per_chunk: int, setting: Setting) -> Iterator[Figure]:
    """`sizes` are positions, width and vocabulary."""
    inputs = _inputs(sizes, setting)
    chunked = partial(linear_cross_entropy, logits_per_chunk=logits_per_chunk)
    results, peaks = [], []
    for function in (chunked, linear_cross_entropy_at_once):
        found: list[Tensor] = []
        peaks.append(peak_bytes(partial(_pass, function, inputs, found), setting.device))
        results.append(found)
    note = f"{sizes[0]:,} positions, {sizes[2]:,} classes: {peaks[0] / 2**20:,.0f} against {peaks[1] / 2**20:,.0f} MiB"
    yield Figure("loss/peak_memory_ratio", peaks[0] / peaks[1], at_most=MEMORY_LIMIT, note=note)
    for name, one, whole in zip(("loss", "hidden_gradient", "weight_gradient"), *results, strict=True):
        distance = float((one - whole).norm() / whole.norm())
        yield Figure(f"loss/{name}_difference", distance, at_most=TOLERANCE, note="relative, by norms")


def _inputs(sizes: tuple[int, int, int], setting: Setting) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    positions, width, vocabulary = sizes
    generator = torch.Generator(setting.device).manual_seed(setting.seed)
    options: dict[str, Any] = {"generator": generator, "device": setting.device}
    hidden_ND = torch.randn(positions, width, **options).requires_grad_()
    weight_VD = (torch.randn(vocabulary, width, **options) * 0.1).requires_grad_()
    targets_N = torch.randint(vocabulary, (positions,), **options)
    return hidden_ND, weight_VD, targets_N, torch.rand(positions, **options)


def _pass(
    function: Callable[..., tuple[Tensor, Tensor]], inputs: tuple[Tensor, Tensor, Tensor, Tensor], found: list[Tensor]
) -> None:
    """One training pass; its loss and gradients are put into `found`."""
    hidden_ND, weight_VD, _, _ = inputs
    total, _ = function(*inputs)
    found.append(total.detach())
    found += torch.autograd.grad(total, (hidden_ND, weight_VD))
