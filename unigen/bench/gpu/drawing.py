# SPDX-License-Identifier: Apache-2.0
"""Images a second by masked-token prediction, from prompts to codes: 50 steps with guidance, steps run in several ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from transformers import Qwen2Config

from unigen.bench.figures import Figure, Setting
from unigen.bench.gpu.cases import Case
from unigen.bench.gpu.timing import FULL, QUICK, start_clean, time_runs
from unigen.bench.models import FULL_CODEBOOK, NUM_CODES, random_text, served_model, shipped_config
from unigen.generation.maskgit import MaskGitNoise, MaskGitSettings, draw_codes
from unigen.models.cost import LanguageModelCost
from unigen.training.speed import peak_flops

STEPS = 50
GUIDANCE_SCALE = 6.0
PROMPT_TOKENS = 128
EMPTY_PROMPT_TOKENS = 9


CASES = (
    Case(1, "graph", accept=1 / 0.25, good=1 / 0.15),
    Case(8, "graph"),
    Case(32, "graph", accept=6.3, good=8.0),
    Case(128, "graph"),
    Case(1, "eager"),
    Case(32, "eager"),
    Case(1, "compile"),
    Case(32, "compile"),
)
"""Rates in images a second."""


def measure(setting: Setting) -> Iterator[Figure]:
    """1.5B in bfloat16, prompts of 128 tokens, 256 codes."""
    config = shipped_config("Qwen2.5-1.5B-Instruct")
    yield from measure_cases(config, FULL_CODEBOOK, CASES, setting)


def measure_cases(
    config: Qwen2Config,
    codebook_size: int,
    cases: Sequence[Case],
    setting: Setting,
    *,
    steps: int = STEPS,
    num_codes: int = NUM_CODES,
    prompt_tokens: int = PROMPT_TOKENS,
) -> Iterator[Figure]:
    """One figure a case; each image has its own prompt, all of one length."""
    start_clean(setting.device)
    model, vocabulary = served_model(config, codebook_size, setting)
    generator = torch.Generator().manual_seed(setting.seed)
    empty = random_text(vocabulary, EMPTY_PROMPT_TOKENS, generator)
    settings = MaskGitSettings(steps=steps, guidance_scale=GUIDANCE_SCALE)
    effort = (QUICK if setting.is_quick else FULL).of_steps(steps)
    peak = peak_flops()
    for case in cases:
        prompts = [random_text(vocabulary, prompt_tokens, generator) for _ in range(case.batch_size)]
        noise = MaskGitNoise.from_seeds(list(range(case.batch_size)), steps, num_codes, setting.device)
        draw = partial(draw_codes, model, vocabulary, prompts, empty, noise, settings, decoding=case.decoding)
        timed = time_runs(draw, setting.device, effort)
        flops = LanguageModelCost(config).drawing_flops(
            prompt_tokens, num_codes, codebook_size, steps, rows=2 * case.batch_size, prompts=case.batch_size + 1
        )
        yield case.figure(
            "drawing",
            case.batch_size / timed.seconds,
            "images/s",
            setting,
            ceiling=case.batch_size * peak / flops if peak else None,
            note=f"{steps} steps, prompt {prompt_tokens}; batch {timed.note}",
        )
