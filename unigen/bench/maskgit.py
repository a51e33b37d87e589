# SPDX-License-Identifier: Apache-2.0
"""Drawing: the prompt computed once and the head over the codebook, against whole rows with whole logits at every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from unigen.bench.figures import Figure, Setting
from unigen.bench.models import (
    FULL_CODEBOOK,
    FULL_VOCABULARY,
    NUM_CODES,
    miniature_config,
    proportional_sizes,
    random_model,
    random_text,
)
from unigen.bench.pairs import Expected, Pair
from unigen.generation.maskgit import MaskGitNoise, MaskGitSettings, draw_codes
from unigen.models.cost import LanguageModelCost
from unigen.reference.maskgit import draw_codes_from_whole_rows

STEPS = 4
EMPTY_PROMPT_TOKENS = 9
FLOP_FLOOR = 1.55
TIME_FLOOR = 1.3


@dataclass(frozen=True)
class _Case:
    prompt_tokens: int
    has_full_vocabulary: bool
    """159,867 ids, or as many as give the head the share of the work that it has in 1.5B."""
    num_codes: int = NUM_CODES

    @property
    def name(self) -> str:
        return f"maskgit/{'full' if self.has_full_vocabulary else 'proportional'}_vocabulary/{self.prompt_tokens}"


def measure(setting: Setting) -> Iterator[Figure]:
    """A miniature of 1.5B, 4 steps with guidance, one image of 256 codes; three lengths of prompt."""
    if setting.is_quick:
        cases = [_Case(48, has_full_vocabulary, num_codes=64) for has_full_vocabulary in (True, False)]
    else:
        cases = [_Case(length, full) for full in (True, False) for length in (128, 256, 576)]
    for case in cases:
        yield from _measure_case(case, setting)


def _measure_case(case: _Case, setting: Setting) -> Iterator[Figure]:
    sizes = (FULL_VOCABULARY, FULL_CODEBOOK)
    if not case.has_full_vocabulary:
        sizes = proportional_sizes(miniature_config(FULL_VOCABULARY, is_quick=setting.is_quick))
    config = miniature_config(sizes[0], is_quick=setting.is_quick)
    model, vocabulary = random_model(config, sizes[1], seed=setting.seed)
    generator = torch.Generator().manual_seed(setting.seed)
    prompt = random_text(vocabulary, case.prompt_tokens, generator)
    empty = random_text(vocabulary, EMPTY_PROMPT_TOKENS, generator)
    noise = MaskGitNoise.from_seeds([setting.seed], STEPS, case.num_codes, torch.device("cpu"))
    arguments = (model, vocabulary, [prompt], empty, noise, MaskGitSettings(steps=STEPS))
    pair = Pair(
        case.name,
        fast=partial(draw_codes, *arguments),
        twin=partial(draw_codes_from_whole_rows, *arguments),
        difference=_codes_that_differ,
        expected=_expected(LanguageModelCost(config), case, sizes),
    )
    yield from pair.figures(setting, flop_floor=FLOP_FLOOR, time_floor=TIME_FLOOR, note="codes that differ")


def _codes_that_differ(fast: Tensor, twin: Tensor) -> float:
    return float((fast != twin).sum())


def _expected(cost: LanguageModelCost, case: _Case, sizes: tuple[int, int]) -> Expected:
    """The fast way is counted as it is run: the prefixes of the two rows are padded to one length."""
    length = case.prompt_tokens + case.num_codes + 2
    whole = cost.forward_flops(2 * length**2, 2 * length, 2 * length * sizes[0])
    fast = cost.drawing_flops(case.prompt_tokens, case.num_codes, sizes[1], STEPS, rows=2, prompts=2)
    return Expected(fast, STEPS * whole)
