# SPDX-License-Identifier: Apache-2.0
"""One seed per image, so that neither batch size nor the number of ranks nor the order changes what is drawn."""

import hashlib

import torch
from torch import Tensor


def image_seed(base_seed: int, item: str, sample: int) -> int:
    """Seed of the `sample`-th image of `item` (a prompt or a benchmark's item), 63 bits."""
    digest = hashlib.sha256(f"v1|{base_seed}|{item}|{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def uniform_noise(seeds: list[int], *shape: int) -> Tensor:
    """Uniform numbers in (0, 1), (len(seeds), *shape) float32 on the CPU, each row from a generator of its own."""
    rows = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).clamp(min=1e-7, max=1 - 1e-7)
