# SPDX-License-Identifier: Apache-2.0
"""Pictures that differ from each other in size, shape and colours."""

import numpy as np
from PIL import Image


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Smooth coloured noise, wide and tall, larger and smaller than what encoders take."""
    rng = np.random.default_rng(seed)
    sizes = [(48, 33), (29, 64), (32, 32), (80, 80)]
    made = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        made.append(coarse.resize(sizes[number % len(sizes)], Image.Resampling.BICUBIC))
    return made
