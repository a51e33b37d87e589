# SPDX-License-Identifier: Apache-2.0
"""UniFork's drawing in batches, every slot of the depth transformer computed once, against the released loop.

At equal batch the released loop computes 1 + 2 + 3 + 4 slots a position where 4 are enough, and reads the unconditional prompt
once an image; by itself it draws one image at a time.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from unigen.bench.counting import count_flops
from unigen.bench.figures import Figure, Setting
from unigen.bench.forks import CODEBOOK, miniature_fork, random_fork
from unigen.bench.pairs import Expected, Pair, deviation, paired_cpu_seconds
from unigen.generation.next_position import NextPositionSettings, draw_positions
from unigen.generation.seeds import uniform_noise
from unigen.models.cost import LanguageModelCost
from unigen.models.depth_transformer import MLP_RATIO, DepthTransformerSizes
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import UniForkConfig
from unigen.reference.released_drawing import draw_positions_as_released

FLOP_FLOOR = 2.0
IMAGES_FLOOR = 5.0
UNCONDITIONAL_TOKENS = 9


@dataclass(frozen=True)
class Load:
    """What is drawn: images, positions of each, tokens of each prompt."""

    images: int
    positions: int
    prompt_tokens: int


def measure(setting: Setting) -> Iterator[Figure]:
    """Operations at the released sizes on the meta device; then a miniature of 0.5B with guidance, drawn for real."""
    load = Load(4, 12, 12) if setting.is_quick else Load(16, 64, 32)
    yield from _released_sizes()
    config = miniature_fork(is_quick=setting.is_quick)
    model, codebook_KC = random_fork(config, setting)
    chosen = NextPositionSettings(top_k=round(900 * config.depth_sizes.codebook_size / CODEBOOK))
    drawn = _Drawing(model, codebook_KC, load, chosen, setting.seed)
    yield from Pair(
        f"unifork_drawing/batch_{load.images}",
        fast=drawn.batched,
        twin=drawn.as_released,
        difference=lambda fast_BSP, twin_BSP: float((fast_BSP != twin_BSP).sum()),
        expected=Expected(cached_flops(config, load), released_flops(config, load)),
    ).figures(setting, flop_floor=FLOP_FLOOR, time_floor=None, note="codes that differ")
    yield _images_per_second(drawn, setting)


@dataclass(frozen=True)
class _Drawing:
    """The same images in either way."""

    model: UniFork
    codebook_KC: Tensor
    load: Load
    settings: NextPositionSettings
    seed: int = 0

    def batched(self) -> Tensor:
        return draw_positions(*self._arguments(self.load.images), self.settings)

    def as_released(self) -> Tensor:
        return draw_positions_as_released(*self._arguments(self.load.images), self.settings)

    def one_as_released(self) -> Tensor:
        return draw_positions_as_released(*self._arguments(1), self.settings)

    def _arguments(self, images: int) -> tuple[UniFork, Tensor, list[list[int]], list[int], Tensor]:
        """Prompts of one length, all different."""
        generator = torch.Generator().manual_seed(self.seed)
        words = partial(torch.randint, self.model.config.llm_config.vocab_size, generator=generator)
        unconditional = words((UNCONDITIONAL_TOKENS,)).tolist()
        prompts = words((images, self.load.prompt_tokens)).tolist()
        shape = (self.load.positions, self.model.config.depth_sizes.depth)
        uniform_BSP = uniform_noise(list(range(images)), *shape)
        return self.model, self.codebook_KC, prompts, unconditional, uniform_BSP


def _images_per_second(drawing: _Drawing, setting: Setting) -> Figure:
    times = paired_cpu_seconds(drawing.batched, drawing.one_as_released, 1 if setting.is_quick else setting.pairs)
    batch = drawing.load.images
    rates = [batch * ratio for ratio in times.ratios]
    note = f"batch of {batch}: {batch / times.fast:.3g} images/s, released one by one {1 / times.twin:.3g}"
    return Figure(
        "unifork_drawing/images_per_second_against_batch_of_one",
        statistics.median(rates),
        "x",
        at_least=setting.timed(IMAGES_FLOOR),
        note=f"{note}; pairs {min(rates):.2f} to {max(rates):.2f}",
    )


def _released_sizes() -> Iterator[Figure]:
    """By formula, which is held by counting a few positions: on the meta device nothing is computed."""
    config, few = UniForkConfig(), Load(1, 2, UNCONDITIONAL_TOKENS)
    with torch.device("meta"):
        model = UniFork(config).eval()
        codebook_KC = torch.empty(config.depth_sizes.codebook_size, config.depth_sizes.code_channels)
    drawing = _Drawing(model, codebook_KC, few, NextPositionSettings())
    ways = {"fast": (drawing.batched, cached_flops), "twin": (drawing.as_released, released_flops)}
    for name, (run, formula) in ways.items():
        counted = count_flops(run)[1]
        yield deviation(f"unifork_drawing/released_sizes/{name}_flops_off_formula", counted, formula(config, few))
    whole = Load(16, config.num_image_codes, 32)
    ratio = released_flops(config, whole) / cached_flops(config, whole)
    note = f"by formula, {whole.images} images of {whole.positions} positions"
    yield Figure("unifork_drawing/released_sizes/flop_ratio", ratio, "x", at_least=FLOP_FLOOR, note=note)


def cached_flops(config: UniForkConfig, load: Load) -> float:
    """Both kinds of prompt read once, padded to the longest; a step sees the whole of the cache's buffers."""
    opened, rows, steps = load.prompt_tokens + 1, 2 * load.images, load.positions - 1
    prompts = load.images + 1
    path = LanguageModelCost(config.path_config("generation"))
    read = path.forward_flops(prompts * opened**2, prompts * opened, 0)
    written = path.forward_flops(steps * rows * (opened + steps), steps * rows, 0)
    sizes = config.depth_sizes
    slots = _slots_flops(sizes, [(1, depth + 1) for depth in range(sizes.depth)])
    return read + written + rows * (steps * _connector_flops(config) + load.positions * slots)


def released_flops(config: UniForkConfig, load: Load) -> float:
    """Every row read; a step sees the columns so far; slots of a position are computed again for each depth."""
    opened, rows, steps = load.prompt_tokens + 1, 2 * load.images, load.positions - 1
    path = LanguageModelCost(config.path_config("generation"))
    seen = sum(opened + step for step in range(1, load.positions))
    whole = path.forward_flops(rows * (opened**2 + seen), rows * (opened + steps), 0)
    sizes = config.depth_sizes
    slots = _slots_flops(sizes, [(depth + 1, depth + 1) for depth in range(sizes.depth)])
    # The connector's result for the last position, too, which goes nowhere.
    return whole + rows * load.positions * (_connector_flops(config) + slots)


def _connector_flops(config: UniForkConfig) -> float:
    width = config.llm_config.hidden_size
    return 2.0 * width * (config.feature_size + width)


def _slots_flops(sizes: DepthTransformerSizes, calls: Sequence[tuple[int, int]]) -> float:
    """One position through the depth transformer, logits of one slot a call.

    Args:
        calls: new slots of each call, and the slots that each of them attends to.
    """
    width, inner = sizes.width, sizes.attention_width
    around = 4 * width * inner if inner != width else 0
    layer = around + 8 * inner**2 + 4 * MLP_RATIO * width**2
    slots = sum(new for new, _ in calls)
    first = sum(new == seen for new, seen in calls)  # what nothing came before begins with the hidden state
    entering = 2 * width * (first * sizes.hidden_size + (slots - first) * sizes.code_channels)
    attended = 4 * inner * sum(new * seen for new, seen in calls)
    classified = 2 * len(calls) * width * sizes.codebook_size
    return float(sizes.num_layers * (slots * layer + attended) + entering + classified)
