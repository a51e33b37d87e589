# SPDX-License-Identifier: Apache-2.0
"""Images a second through the MAGVIT-v2 encoder with random weights: pixels to codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from unigen.bench.figures import Figure, Setting
from unigen.bench.gpu.timing import FULL, QUICK, start_clean, time_runs
from unigen.config.folders import SHIPPED_CONFIGS
from unigen.models.cost import measure_on_meta
from unigen.models.image_tokenizers.magvitv2 import MagVitV2, MagVitV2Config
from unigen.models.weights import read_config
from unigen.training.speed import peak_flops

BATCH_SIZE = 64
SIDE = 256
ACCEPT, GOOD = 700.0, 1100.0
"""Images a second in bfloat16 on one H200 (performance.md, section 4)."""


@dataclass(frozen=True)
class Case:
    name: str
    dtype: torch.dtype
    channels_last: bool = False
    compile: bool = False
    is_judged: bool = False


CASES = (
    Case("float32", torch.float32),
    Case("bfloat16", torch.bfloat16),
    Case("bfloat16_channels_last", torch.bfloat16, channels_last=True),
    Case("bfloat16_compiled", torch.bfloat16, channels_last=True, compile=True, is_judged=True),
)


def measure(setting: Setting) -> Iterator[Figure]:
    """The released size at 256 px."""
    content = read_config(SHIPPED_CONFIGS / "magvitv2")
    sizes = MagVitV2Config.from_dict({name: value for name, value in content.items() if not name.startswith("_")})
    for case in CASES:
        yield measure_case(sizes, case, setting)


def measure_case(
    sizes: MagVitV2Config, case: Case, setting: Setting, batch_size: int = BATCH_SIZE, side: int = SIDE
) -> Figure:
    """One way to run the encoder."""
    device = setting.device
    start_clean(device)
    with torch.device(device):
        model = MagVitV2(sizes).eval().to(case.dtype)
    pixels_B3HW = torch.rand(batch_size, 3, side, side, device=device, dtype=case.dtype) * 2 - 1
    if case.channels_last:
        model = model.to(memory_format=torch.channels_last)
        pixels_B3HW = pixels_B3HW.to(memory_format=torch.channels_last)
    if case.compile:
        model.encoder.compile()
    timed = time_runs(lambda: model.encode(pixels_B3HW), device, QUICK if setting.is_quick else FULL)
    with torch.device("meta"):
        empty = MagVitV2(sizes)
        one_13HW = torch.empty(1, 3, side, side)
    peak, flops = peak_flops(), measure_on_meta(lambda: empty.encoder(one_13HW)).flops
    return Figure(
        f"encoder/{case.name}",
        batch_size / timed.seconds,
        "images/s",
        at_least=setting.timed(ACCEPT) if case.is_judged else None,
        good=GOOD if case.is_judged else None,
        ceiling=peak / flops if peak else None,
        note=f"{batch_size} images of {side} px, {timed.note}",
    )
