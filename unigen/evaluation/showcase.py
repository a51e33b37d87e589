# SPDX-License-Identifier: Apache-2.0
"""What of an evaluation a person should look at: drawings with verdicts, answered questions, reconstructions."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from unigen.data.shapes.scene import TAGS
from unigen.evaluation.records import read_records
from unigen.evaluation.tokenizer_quality import shown_pairs
from unigen.evaluation.vqa_shapes import QUESTIONS_FILE

T = TypeVar("T")
DRAWINGS_PER_TAG = 12
EXAMPLES_PER_KIND = 6


@dataclass(frozen=True)
class Drawing:
    """An image drawn for a prompt, and what the judge says of it."""

    image: str
    prompt: str
    correct: bool
    reason: str


@dataclass(frozen=True)
class Answer:
    """A question about an image, what the model said and what was right."""

    image: str
    question: str
    prediction: str
    answer: str
    correct: bool


def drawings(evaluation: Path) -> dict[str, list[Drawing]]:
    """For each tag some drawings, right and wrong ones in about the proportion of the whole, each kind at least once."""
    folder = evaluation / "geneval_shapes"
    records = sorted(read_records(folder).values(), key=lambda record: record["item_id"])
    records = [record for record in records if (folder / record["path"]).is_file()]
    tags = [tag for tag in TAGS if any(record["tag"] == tag for record in records)]
    return {
        tag: [
            Drawing(data_uri(folder / record["path"]), record["prompt"], record["correct"], record["reason"])
            for record in _choose([record for record in records if record["tag"] == tag], DRAWINGS_PER_TAG)
        ]
        for tag in tags
    }


def answers(evaluation: Path, world: Path) -> dict[str, list[Answer]]:
    """For each kind of question some answers to it; empty where the world's images are not there any more."""
    folder = (world / QUESTIONS_FILE).parent
    every = read_records(evaluation / "vqa_shapes").values()
    looking = [record for record in every if record["item_id"].endswith("/00000")]
    present = sorted(
        (record for record in looking if (folder / record["image"]).is_file()), key=lambda record: record["item_id"]
    )
    kinds = dict.fromkeys(record["kind"] for record in present)
    return {
        kind: [
            Answer(
                data_uri(folder / record["image"]),
                record["question"],
                record["prediction"],
                record["answer"],
                record["correct"],
            )
            for record in _choose([record for record in present if record["kind"] == kind], EXAMPLES_PER_KIND)
        ]
        for kind in kinds
    }


def reconstructions(evaluation: Path) -> list[tuple[str, str]]:
    """(original, reconstruction) pairs."""
    return [(data_uri(original), data_uri(rebuilt)) for original, rebuilt in shown_pairs(evaluation)]


def data_uri(path: Path) -> str:
    """A PNG file as it can stand in a page."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _choose(records: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """`count` records: right ones, then wrong ones, each spread evenly over the prompts."""
    right, wrong = ([record for record in records if record["correct"] is kind] for kind in (True, False))
    if not records:
        return []
    num_wrong = round(count * len(wrong) / len(records))
    num_wrong = min(max(num_wrong, bool(wrong)), count - bool(right), len(wrong))
    return [*_spread(right, count - num_wrong), *_spread(wrong, num_wrong)]


def _spread(records: Sequence[T], count: int) -> list[T]:
    count = min(count, len(records))
    return [records[index * len(records) // count] for index in range(count)]
