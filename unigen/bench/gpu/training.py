# SPDX-License-Identifier: Apache-2.0
"""Training steps with random weights: packed rows, mixed precision, fused AdamW; each lever off and on.

A step is forward, backward, clipping and update over rows that lie on the device already. Padding and recomputation count for
nothing in the use of the hardware (MFU).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn
from transformers import Qwen2Config

from unigen.bench.figures import Figure, Setting
from unigen.bench.gpu.timing import FULL, QUICK, Effort, Timed, start_clean, time_runs
from unigen.bench.mixes import PT1, Mix
from unigen.bench.models import FULL_CODEBOOK, made_up_vocabulary, random_model, shipped_config
from unigen.data.batch import Batch, collate, fill_codes, pack_batches
from unigen.models.cost import training_flops
from unigen.models.unigen import UniGen
from unigen.sequence.vocabulary import Vocabulary
from unigen.training.compilation import compile_blocks
from unigen.training.recompute import set_recompute
from unigen.training.speed import peak_flops
from unigen.training.stages.row_losses import row_losses
from unigen.training.stages.stage import Stage, in_chunks

TOKENS_PER_ROW = 8192
NUM_BATCHES = 4
"""Different batches that the steps take turns with."""


@dataclass(frozen=True)
class Target:
    """Useful tokens a second on one H200 (performance.md, section 4)."""

    accept: float
    good: float


TARGETS = {"Qwen2.5-0.5B-Instruct": Target(104e3, 130e3), "Qwen2.5-1.5B-Instruct": Target(41e3, 48e3)}


@dataclass(frozen=True)
class Levers:
    """What a step is run with."""

    name: str
    compile: bool = True
    recompute: Literal["none", "selective", "full"] = "none"
    pack: bool = True


JUDGED = Levers("compiled")
VARIANTS = (
    JUDGED,
    Levers("not_compiled", compile=False),
    Levers("compiled_recompute_selective", recompute="selective"),
    Levers("compiled_recompute_full", recompute="full"),
    Levers("compiled_padded_rows", pack=False),
)


def measure(setting: Setting) -> Iterator[Figure]:
    """0.5B and 1.5B on the lengths of PT1, rows of 8,192 tokens."""
    for name, target in TARGETS.items():
        for levers in VARIANTS:
            yield from measure_step(
                shipped_config(name),
                f"training/{name.split('-')[1].lower()}/{levers.name}",
                levers,
                setting,
                target=target if levers is JUDGED else None,
            )


def measure_step(
    config: Qwen2Config,
    name: str,
    levers: Levers,
    setting: Setting,
    *,
    target: Target | None = None,
    mix: Mix = PT1,
    codebook_size: int = FULL_CODEBOOK,
    tokens_per_row: int = TOKENS_PER_ROW,
) -> Iterator[Figure]:
    """Tokens a second, MFU and peak memory of one way to train."""
    device = setting.device
    start_clean(device)
    config.initializer_range = 0.02
    vocabulary = made_up_vocabulary(config.vocab_size, codebook_size)
    batches = _batches(mix, vocabulary, tokens_per_row, setting, is_packed=levers.pack)
    model, _ = random_model(config, codebook_size, device, seed=setting.seed)
    timed = _time_steps(model.train(), batches, levers, setting, QUICK if setting.is_quick else FULL)
    tokens = sum(batch.num_tokens for batch in batches) / len(batches)
    peak, rate = peak_flops(), tokens / timed.seconds
    flops = sum(training_flops(config, b.visible.documents_RL, len(b.supervised_T)) for b in batches) / len(batches)
    yield Figure(
        f"{name}/tokens_per_second",
        rate,
        "tokens/s",
        at_least=setting.timed(target.accept) if target else None,
        good=target.good if target else None,
        ceiling=peak / flops * tokens if peak else None,
        note=f"useful tokens; step {timed.note}",
    )
    if peak:
        yield Figure(f"{name}/mfu", flops / timed.seconds / peak, note="model operations over the data sheet's peak")
    if device.type == "cuda":
        yield Figure(f"{name}/peak_memory", torch.cuda.max_memory_allocated(device) / 1e9, "GB")


def _batches(
    mix: Mix, vocabulary: Vocabulary, tokens_per_row: int, setting: Setting, *, is_packed: bool
) -> list[Batch]:
    """One full row a batch, or as many slots in rows of one sample each; codes filled in, on the device."""
    found: list[Batch] = []
    for seed in itertools.count(setting.seed):
        samples = mix.samples(vocabulary, seed, steps=max(1, tokens_per_row // mix.row_length // 8))
        if is_packed:
            batches = pack_batches(samples, tokens_per_row, 1, length_multiple=tokens_per_row)
        else:
            rows = max(1, tokens_per_row // mix.row_length)
            batches = (collate([[one] for one in chosen], mix.row_length) for chosen in in_chunks(samples, rows))
        for batch in batches:
            if batch.num_tokens > tokens_per_row // 2:  # not the rest of a step
                found.append(fill_codes(batch, torch.stack(batch.code_images), vocabulary).to(setting.device))
            if len(found) == NUM_BATCHES:
                return found
    raise AssertionError("count() has no end")


def _time_steps(model: UniGen, batches: Sequence[Batch], levers: Levers, setting: Setting, effort: Effort) -> Timed:
    stage = cast(Stage, _Holder(model))  # what the two levers ask of a stage is its model
    set_recompute(stage, levers.recompute)
    if levers.compile:
        compile_blocks(stage, "one process")
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    turns = itertools.cycle(batches)
    scales = {"t2i": 1e-3, "mmu": 1e-3, "lm": 1e-3}

    def step() -> None:
        with torch.autocast(setting.device.type, torch.bfloat16):
            total, _ = row_losses(model, next(turns), scales)
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return time_runs(step, setting.device, effort)


class _Holder(nn.Module):
    def __init__(self, model: UniGen) -> None:
        super().__init__()
        self.model = model
