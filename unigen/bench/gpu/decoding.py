# SPDX-License-Identifier: Apache-2.0
"""Text tokens a second behind a prompt, with cached keys and values; the ceiling is what memory can deliver (MBU)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import Qwen2Config

from unigen.bench.figures import Figure, Setting
from unigen.bench.gpu.cases import Case
from unigen.bench.gpu.timing import FULL, QUICK, Timed, start_clean, time_runs
from unigen.bench.machine import peak_bandwidth
from unigen.bench.models import FULL_CODEBOOK, random_text, served_model, shipped_config
from unigen.data.batch import Batch, Sample, collate
from unigen.generation.autoregressive import TextSettings, write_text
from unigen.models.cost import LanguageModelCost
from unigen.sequence.layout import Document, text

PROMPT_TOKENS = 128
FEW_TOKENS, MANY_TOKENS = 64, 256
"""The rate is that of the tokens between the two: neither the prompt nor the recording of a graph is in it."""
NEVER = -1


CASES = (
    Case(1, "graph", accept=900, good=1200),
    Case(64, "graph", accept=25_000),
    Case(1, "eager"),
    Case(64, "eager"),
    Case(1, "compile"),
    Case(64, "compile"),
)
"""Rates in tokens a second."""


def measure(setting: Setting) -> Iterator[Figure]:
    """1.5B in bfloat16, prompts of 128 tokens."""
    config = shipped_config("Qwen2.5-1.5B-Instruct")
    yield from measure_cases(config, FULL_CODEBOOK, CASES, setting)


def measure_cases(
    config: Qwen2Config,
    codebook_size: int,
    cases: Sequence[Case],
    setting: Setting,
    *,
    prompt_tokens: int = PROMPT_TOKENS,
    lengths: tuple[int, int] = (FEW_TOKENS, MANY_TOKENS),
) -> Iterator[Figure]:
    """Two figures a case: the rate of a long answer's tokens, and of a whole answer with its prompt."""
    start_clean(setting.device)
    model, vocabulary = served_model(config, codebook_size, setting)
    generator = torch.Generator().manual_seed(setting.seed)
    size, cost = vocabulary.code_offset, LanguageModelCost(config)
    bandwidth = peak_bandwidth(setting.device)

    def timed(batch: Batch, case: Case, new_tokens: int) -> Timed:
        settings, seeds = TextSettings(max_new_tokens=new_tokens), [0] * case.batch_size
        effort = (QUICK if setting.is_quick else FULL).of_steps(new_tokens)
        return time_runs(
            lambda: write_text(model, batch, None, NEVER, size, settings, seeds, case.decoding), setting.device, effort
        )

    for case in cases:
        words = [random_text(vocabulary, prompt_tokens, generator) for _ in range(case.batch_size)]
        batch = collate([[Sample("", Document(1, (text(row),)))] for row in words]).to(setting.device)
        few, many = (timed(batch, case, length) for length in lengths)
        seconds = max(many.seconds - few.seconds, 1e-9) / (lengths[1] - lengths[0])
        needed = cost.decoding_bytes(prompt_tokens + sum(lengths) / 2, case.batch_size, size)
        yield case.figure(
            "decoding",
            case.batch_size / seconds,
            "tokens/s",
            setting,
            ceiling=case.batch_size * bandwidth / needed if bandwidth else None,
            note=f"tokens {lengths[0]} to {lengths[1]} behind a prompt of {prompt_tokens}; repeats {many.spread:.1%} apart",
        )
        yield Figure(
            f"{case.name('decoding')}/whole_answer",
            case.batch_size * lengths[1] / many.seconds,
            "tokens/s",
            note=f"prompt, recording and {lengths[1]} tokens; {many.note}",
        )
