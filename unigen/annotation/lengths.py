# SPDX-License-Identifier: Apache-2.0
"""How long captions are: a histogram over words, as JSON and as a picture."""

from collections.abc import Iterable
from pathlib import Path
from statistics import mean, median
from typing import Any

from unigen.data.json_files import write_json

BIN_WORDS = 25
JSON_NAME, PICTURE_NAME = "lengths.json", "lengths.png"


def length_histogram(num_words: Iterable[int], goal: int) -> dict[str, Any]:
    """Counts of captions in bins of BIN_WORDS words, from none on; `share_at_goal` have `goal` words or more."""
    lengths = sorted(num_words)
    counts = [0] * (lengths[-1] // BIN_WORDS + 1) if lengths else []
    for length in lengths:
        counts[length // BIN_WORDS] += 1
    return {
        "num_captions": len(lengths),
        "bin_words": BIN_WORDS,
        "counts": counts,
        "mean": mean(lengths) if lengths else None,
        "median": median(lengths) if lengths else None,
        "goal": goal,
        "share_at_goal": sum(length >= goal for length in lengths) / len(lengths) if lengths else None,
    }


def write_lengths(histogram: dict[str, Any], folder: Path) -> None:
    """Write JSON_NAME and PICTURE_NAME."""
    from matplotlib.figure import Figure

    write_json(histogram, folder / JSON_NAME)
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    starts = [BIN_WORDS * index for index in range(len(histogram["counts"]))]
    axes.bar(starts, histogram["counts"], width=BIN_WORDS * 0.9, align="edge")
    axes.axvline(histogram["goal"], color="black", linestyle="--", linewidth=1)
    axes.set_xlabel("words of a caption")
    axes.set_ylabel("captions")
    figure.savefig(folder / PICTURE_NAME, dpi=150)
