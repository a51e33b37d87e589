# SPDX-License-Identifier: Apache-2.0
"""How alike pairs of image files are, by one encoder, and what that amounts to over many pairs and several encoders.

Units: a likeness is the cosine of two features, in [-1, 1]; the overall score is 100 times the plain mean of four of them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.errors import EvaluationError
from unigen.evaluation.drawings import read_image
from unigen.evaluation.statistics import clustered, estimate
from unigen.evaluation.unified_bench.encoders import has_overall
from unigen.generation.pipeline import in_batches
from unigen.rewards.image_encoders.encoder import ImageEncoder
from unigen.rewards.image_similarity import similarities

UNITS = {"similarity": "cosine, -1 to 1", "overall": "100 times the mean of the four cosines"}


@dataclass(frozen=True)
class ImagePair:
    """An image and what was made of it, as files."""

    name: str
    original: Path
    generated: Path


@dataclass(frozen=True)
class Likeness:
    """What an encoder says of a pair; `reason` where it could say nothing."""

    pair: ImagePair
    value: float | None
    reason: str = ""


def compare_pairs(encoder: ImageEncoder, pairs: Sequence[ImagePair], batch_size: int) -> Iterator[Likeness]:
    """The likeness of each pair, in order; one that cannot be read costs none of the others."""
    for batch in in_batches(pairs, batch_size):
        images, originals, reasons = [], [], []
        for pair in batch:
            try:
                both = read_image(pair.generated), read_image(pair.original)
            except EvaluationError as error:
                reasons.append(str(error))
                continue
            reasons.append("")
            images.append(both[0])
            originals.append(both[1])
        values = iter(similarities(encoder, images, originals, batch_size).tolist() if images else [])
        for pair, reason in zip(batch, reasons, strict=True):
            value = None if reason else next(values)
            if value is not None and not math.isfinite(value):
                value, reason = None, f"its likeness by {encoder.kind} is {value}"
            yield Likeness(pair, value, reason)


def summarise(found: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Means over images with their 95% bootstrap intervals: of each encoder, and overall where the four are there.

    Args:
        found: encoder -> image -> likeness.
    Raises:
        EvaluationError: an encoder has nothing to say, or no image has all.
    """
    empty = [name for name, values in found.items() if not values]
    if empty:
        raise EvaluationError(f"no pair of images could be compared by {', '.join(empty)}")
    summary: dict[str, Any] = {"similarity": {name: _mean(values) for name, values in found.items()}}
    if has_overall(list(found)):
        shared = [image for image in next(iter(found.values())) if all(image in values for values in found.values())]
        if not shared:
            raise EvaluationError("no pair of images could be compared by all four encoders")
        overall = _mean({image: 100 * _plain_mean([found[name][image] for name in found]) for image in shared})
        summary |= {"overall": overall["mean"], "interval": [overall["low"], overall["high"]]}
    return {**summary, "unit": UNITS}


def _mean(values: Mapping[str, float]) -> dict[str, float]:
    found = estimate(clustered(values.items()))
    return {"mean": found.value, "low": found.low, "high": found.high}


def _plain_mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
