# SPDX-License-Identifier: Apache-2.0
"""Unified-Bench's score written plainly: one pair of files at a time by one encoder at a time, then the plain mean of means."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from unigen.reference.image_similarity import similarity_slowly


def unified_bench_slowly(
    pairs: Sequence[tuple[Path, Path]], encoders: Mapping[str, Path]
) -> tuple[dict[str, list[float]], float]:
    """The cosines of (original, generated) files by each kind of encoder, and 100 times the mean of the encoders' means.

    Args:
        encoders: kind -> folder.
    """
    cosines: dict[str, list[float]] = {}
    for kind, folder in encoders.items():
        cosines[kind] = []
        for original, generated in pairs:
            cosines[kind].append(similarity_slowly(kind, folder, Image.open(generated), Image.open(original)))
    means = [sum(values) / len(values) for values in cosines.values()]
    return cosines, 100 * sum(means) / len(means)
