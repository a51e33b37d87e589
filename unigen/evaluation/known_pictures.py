# SPDX-License-Identifier: Apache-2.0
"""A picture that is the same everywhere, for testing what looks at images."""

import numpy as np
from PIL import Image


def soft_patches(side: int, seed: int = 0) -> Image.Image:
    """Soft patches of colour."""
    values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC)
