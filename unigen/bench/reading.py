# SPDX-License-Identifier: Apache-2.0
"""Reading: text written behind cached keys and values, against the whole row with all logits for every token."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from unigen.bench.figures import Figure, Setting
from unigen.bench.models import FULL_VOCABULARY, miniature_config, proportional_sizes, random_model, random_text
from unigen.bench.pairs import Expected, Pair
from unigen.data.batch import Sample, collate
from unigen.generation.autoregressive import TextSettings, write_text
from unigen.models.cost import LanguageModelCost
from unigen.reference.reading import write_text_slowly
from unigen.sequence.layout import Document, text

FLOP_FLOOR = 12.0
TIME_FLOOR = 6.0
NEVER = -1
"""A stop token that is never written."""


def measure(setting: Setting) -> Iterator[Figure]:
    """A miniature of 1.5B with a vocabulary in proportion, one row: half of a prompt of 900 with 128 new tokens."""
    prompt_tokens, new_tokens = (48, 16) if setting.is_quick else (450, 64)
    vocab_size, codebook_size = proportional_sizes(miniature_config(FULL_VOCABULARY, is_quick=setting.is_quick))
    config = miniature_config(vocab_size, is_quick=setting.is_quick)
    model, vocabulary = random_model(config, codebook_size, seed=setting.seed)
    words = random_text(vocabulary, prompt_tokens, torch.Generator().manual_seed(setting.seed))
    batch = collate([[Sample("", Document(1, (text(words),)))]])
    size = vocabulary.code_offset
    settings = TextSettings(max_new_tokens=new_tokens)
    cost = LanguageModelCost(config)
    lengths = range(prompt_tokens, prompt_tokens + new_tokens)
    whole = sum(cost.forward_flops(length**2, length, length * vocab_size) for length in lengths)
    pair = Pair(
        f"reading/{prompt_tokens}_and_{new_tokens}_new",
        fast=lambda: write_text(model, batch, None, NEVER, size, settings, [0])[0],
        twin=partial(write_text_slowly, model, batch, None, NEVER, size, new_tokens),
        difference=_tokens_that_differ,
        expected=Expected(cost.reading_flops(prompt_tokens, new_tokens, size), whole),
    )
    yield from pair.figures(setting, flop_floor=FLOP_FLOOR, time_floor=TIME_FLOOR, note="tokens that differ")


def _tokens_that_differ(fast: list[int], twin: list[int]) -> float:
    differing = sum(one != other for one, other in zip(fast, twin, strict=False))
    return float(differing + abs(len(fast) - len(twin)))
