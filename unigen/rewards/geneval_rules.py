# SPDX-License-Identifier: Apache-2.0
"""GenEval's decision: does what a detector found in an image agree with one line of the prompt file?

Source: GenEval (arXiv 2310.11513), its published evaluation procedure and thresholds.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unigen.data.detection import Detection
from unigen.errors import EvaluationError

RELATIONS = ("left of", "right of", "above", "below")

_NO_OFFSET_PIXELS = 1e-3
_DIRECTION_THRESHOLD = 0.5


@dataclass(frozen=True)
class Thresholds:
    """When a detection counts. The defaults are those of the official benchmark.

    `counting_score` takes the place of `score` for every class of a `counting` prompt, `position` is the share of the two
    objects' extents by which their centres must differ before a relation holds. Of two objects of a class whose boxes overlap
    by `max_overlap` (IoU) or more only the better counts; 1 lets all count.
    """

    score: float = 0.3
    counting_score: float = 0.9
    max_objects_per_class: int = 16
    max_overlap: float = 1.0
    position: float = 0.1


@dataclass(frozen=True)
class Verdict:
    """Whether an image is correct and, where it is not, everything that is wrong with it in words."""

    correct: bool
    reason: str
    share: float
    """Of what the prompt includes (numbers, colours, positions) the part that is right, 1 if and only if all is. What it excludes
    earns nothing, and costs one such part where it is there."""


def judge(
    metadata: Mapping[str, Any], detections: Sequence[Detection], thresholds: Thresholds | None = None
) -> Verdict:
    """Decide over one image.

    Args:
        metadata: a line of the prompt file: `tag`, `include` and perhaps `exclude`.
        detections: what was found, in any order and unfiltered; colours are needed only where the prompt names one.
        thresholds: the official ones unless given.

    Raises:
        EvaluationError: the metadata is not of GenEval's schema.
    """
    thresholds = thresholds or Thresholds()
    found = group_by_class(metadata, detections, thresholds)
    groups: list[list[Detection] | None] = []
    faults: list[str] = []
    num_right = num_wanted = 0
    for wanted in _items(metadata, "include"):
        candidates = found[wanted["class"]][: wanted["count"]]
        checks = list(_checks_of_included(wanted, candidates, groups, thresholds))
        groups.append(candidates if checks[-1] is None else None)
        faults += [fault for fault in checks if fault is not None]
        num_right += checks.count(None)
        num_wanted += 1 + ("color" in wanted) + ("position" in wanted)
    for unwanted in _items(metadata, "exclude"):
        num_found = len(found[unwanted["class"]])
        if num_found >= unwanted["count"]:
            faults.append(f"expected {unwanted['class']}<{unwanted['count']}, found {num_found}")
            num_right -= 1
    share = max(num_right, 0) / num_wanted if num_wanted else float(not faults)
    return Verdict(not faults, "; ".join(faults), share)


def group_by_class(
    metadata: Mapping[str, Any], detections: Sequence[Detection], thresholds: Thresholds
) -> defaultdict[str, list[Detection]]:
    """The detections that count, by class, best first; of equal scores the later one, as the official code does."""
    minimum = thresholds.counting_score if metadata.get("tag") == "counting" else thresholds.score
    found: defaultdict[str, list[Detection]] = defaultdict(list)
    for detection in sorted(detections, key=lambda detection: detection.score)[::-1]:
        group = found[detection.class_name]
        if detection.score > minimum and len(group) < thresholds.max_objects_per_class:
            group.append(detection)
    for name, group in found.items():
        found[name] = _without_overlaps(group, thresholds.max_overlap)
    return found


def candidates_for_color(
    metadata: Mapping[str, Any], detections: Sequence[Detection], thresholds: Thresholds
) -> list[Detection]:
    """The detections whose colour decides: of each class with a wanted colour the best `count`, where there are as many."""
    found = group_by_class(metadata, detections, thresholds)
    groups = [
        found[wanted["class"]][: wanted["count"]]
        for wanted in _items(metadata, "include")
        if "color" in wanted and len(found[wanted["class"]]) >= wanted["count"]
    ]
    return [candidate for group in groups for candidate in group]


def overlap(box: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1) whose ends count as inside, as the official code takes them."""
    width = max(min(box[2], other[2]) - max(box[0], other[0]) + 1, 0)
    height = max(min(box[3], other[3]) - max(box[1], other[1]) + 1, 0)
    both = width * height
    areas = [(one[2] - one[0] + 1) * (one[3] - one[1] + 1) for one in (box, other)]
    return both / (sum(areas) - both)


def relative_position(
    box: Sequence[float], reference: Sequence[float], threshold: float = Thresholds.position
) -> set[str]:
    """Which of RELATIONS hold for `box` seen from `reference` (both x0, y0, x1, y1); a diagonal gives two."""
    offset = [(box[axis] + box[axis + 2] - reference[axis] - reference[axis + 2]) / 2 for axis in (0, 1)]
    extent = [abs(box[axis + 2] - box[axis]) + abs(reference[axis + 2] - reference[axis]) for axis in (0, 1)]
    revised = [math.copysign(max(abs(o) - threshold * e, 0.0), o) for o, e in zip(offset, extent, strict=True)]
    if all(abs(value) < _NO_OFFSET_PIXELS for value in revised):
        return set()
    right, down = (value / math.hypot(*offset) for value in revised)
    holds = (
        right < -_DIRECTION_THRESHOLD,
        right > _DIRECTION_THRESHOLD,
        down < -_DIRECTION_THRESHOLD,
        down > _DIRECTION_THRESHOLD,
    )
    return {relation for relation, is_true in zip(RELATIONS, holds, strict=True) if is_true}


def _without_overlaps(group: Sequence[Detection], max_overlap: float) -> list[Detection]:
    kept: list[Detection] = []
    for detection in group:
        if max_overlap == 1 or all(overlap(better.box, detection.box) < max_overlap for better in kept):
            kept.append(detection)
    return kept


def _checks_of_included(
    wanted: Mapping[str, Any],
    candidates: list[Detection],
    groups: Sequence[list[Detection] | None],
    thresholds: Thresholds,
) -> Iterator[str | None]:
    """One `include` item's conditions in turn (number, colour, position): None for one that holds; a fault ends them.

    `groups` are the objects of the earlier items, None where those are not right.
    """
    name, count = wanted["class"], wanted["count"]
    if len(candidates) < count:
        yield f"expected {name}>={count}, found {len(candidates)}"
        return
    yield None
    if "color" in wanted:
        colors = [candidate.color for candidate in candidates]
        if colors.count(wanted["color"]) < count:
            yield f"expected {wanted['color']} {name}>={count}, found {', '.join(map(str, colors))}"
            return
        yield None
    if "position" in wanted:
        yield _fault_of_position(wanted, candidates, groups, thresholds)


def _fault_of_position(
    wanted: Mapping[str, Any],
    candidates: list[Detection],
    groups: Sequence[list[Detection] | None],
    thresholds: Thresholds,
) -> str | None:
    name = wanted["class"]
    relation, target = wanted["position"]
    if relation not in RELATIONS or not 0 <= target < len(groups):
        raise EvaluationError(
            f"position {wanted['position']!r} of {name!r}: want one of {RELATIONS} and an earlier item"
        )
    references = groups[target]
    if references is None:
        return f"no target for {name} to be {relation}"
    for candidate in candidates:
        for reference in references:
            relations = relative_position(candidate.box, reference.box, thresholds.position)
            if relation not in relations:
                return f"expected {name} {relation} target, found {', '.join(sorted(relations)) or 'no relation'}"
    return None


def _items(metadata: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    items = metadata.get(key, ())
    if any("class" not in item or not isinstance(item.get("count"), int) for item in items):
        raise EvaluationError(
            f"{key!r} of prompt {metadata.get('prompt')!r}: every item needs a class and a whole count"
        )
    return items
