# SPDX-License-Identifier: Apache-2.0
"""GenEval's scores out of the verdicts over single images."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unigen.data.shapes.scene import TAGS
from unigen.evaluation.statistics import Estimate, clustered, estimate


@dataclass(frozen=True)
class Graded:
    """The verdict over one image."""

    prompt: int | str
    """Number or name of its prompt; the images of one prompt are a cluster."""
    tag: str
    correct: bool


def summarise(graded: Sequence[Graded]) -> dict[str, Any]:
    """Every tag's share of correct images, and their unweighted mean (`overall`), with 95% intervals over prompts; the shares
    of correct images, and of prompts with a correct image, in all."""
    tags = present_tags(graded)
    by_tag = {tag: estimate_tags(graded, [tag]) for tag in tags}
    overall = estimate_tags(graded, tags)
    prompts: dict[int | str, bool] = defaultdict(bool)
    for one in graded:
        prompts[one.prompt] |= one.correct
    return {
        "overall": overall.value,
        "interval": overall.interval,
        "tags": {tag: found.value for tag, found in by_tag.items()},
        "tag_intervals": {tag: found.interval for tag, found in by_tag.items()},
        "correct_images": sum(one.correct for one in graded) / len(graded),
        "correct_prompts": sum(prompts.values()) / len(prompts),
        "num_prompts": len(prompts),
        "num_images": len(graded),
    }


def present_tags(graded: Sequence[Graded]) -> list[str]:
    """The tags that have images: GenEval's in its order, then others."""
    present = dict.fromkeys(one.tag for one in graded)
    return [tag for tag in dict.fromkeys([*TAGS, *present]) if tag in present]


def estimate_tags(graded: Sequence[Graded], tags: Sequence[str]) -> Estimate:
    """The unweighted mean over tags of their shares of correct images."""
    return estimate(*[clustered((one.prompt, one.correct) for one in graded if one.tag == tag) for tag in tags])
