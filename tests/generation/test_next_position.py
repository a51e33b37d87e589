# SPDX-License-Identifier: Apache-2.0
"""Drawing position by position: the cached loop gives the codes of full recomputation, at a fraction of its operations."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.tiny_unifork import FORK, small_unifork
from unigen.generation.next_position import NextPositionSettings, draw_positions
from unigen.generation.seeds import uniform_noise
from unigen.reference.next_position import draw_positions_slowly
from unigen.reference.released_drawing import draw_positions_as_released

PROMPTS, UNCONDITIONAL, POSITIONS = [[3, 4, 5, 6, 7], [8, 9], [3, 4, 5, 6, 7]], [1, 2, 1], 6
CODEBOOK = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))


def noise(seeds: list[int]) -> Tensor:
    return uniform_noise(seeds, POSITIONS, 3)


def draw(draw_codes: Any = draw_positions, seeds: tuple[int, ...] = (1, 2, 3), **settings: Any) -> Tensor:
    chosen = NextPositionSettings(**{"top_k": 12, **settings})
    return draw_codes(small_unifork(**FORK), CODEBOOK, PROMPTS, UNCONDITIONAL, noise(list(seeds)), chosen)


@pytest.mark.parametrize(
    "settings",
    [{}, {"guidance_scale": 1.0}, {"temperature": 0.0}, {"top_k": 3, "top_p": 0.7, "temperature": 2.0}, {"top_k": 0}],
)
def test_the_cache_gives_the_codes_of_recomputing_everything(settings: dict[str, Any]) -> None:
    codes = draw(**settings)
    assert codes.shape == (3, POSITIONS, 3)
    assert torch.equal(codes, draw(draw_positions_slowly, **settings))
    assert torch.equal(codes, draw(draw_positions_as_released, **settings))


def test_an_image_depends_on_its_own_seed_and_prompt_alone() -> None:
    together = draw()
    model, settings = small_unifork(**FORK), NextPositionSettings(top_k=12)
    for index, prompt in enumerate(PROMPTS):
        alone = draw_positions(model, CODEBOOK, [prompt], UNCONDITIONAL, noise([index + 1]), settings)
        assert torch.equal(alone[0], together[index])
    assert not torch.equal(together[0], together[2])
    assert not torch.equal(together, draw(seeds=(4, 5, 6)))


@pytest.mark.parametrize(
    "changed", [{"guidance_scale": 9.0}, {"temperature": 3.0}, {"top_k": 2}, {"top_p": 0.2}], ids=lambda one: str(one)
)
def test_every_setting_is_honoured(changed: dict[str, Any]) -> None:
    assert not torch.equal(draw(), draw(**changed))


def test_every_step_is_told() -> None:
    steps: list[int] = []
    model, settings = small_unifork(**FORK), NextPositionSettings()
    draw_positions(model, CODEBOOK, PROMPTS, UNCONDITIONAL, noise([1, 2, 3]), settings, steps.append)
    assert steps == list(range(POSITIONS))


def test_the_cached_loop_needs_less_than_half_the_operations() -> None:
    flops = []
    for how in (draw_positions, draw_positions_slowly):
        with FlopCounterMode(display=False) as counter:
            draw(how)
        flops.append(counter.get_total_flops())
    assert flops[1] > 2 * flops[0]
