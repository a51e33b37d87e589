# SPDX-License-Identifier: Apache-2.0
"""Best-of-N: several images of each prompt are drawn and rated, and the best are kept.

Everything of a prompt lies in its own folder: `samples/<number>.png`, and `ratings_<name>.jsonl` with one line a candidate,
written when all of them are rated. A run that was stopped goes on from there.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from unigen.data.json_files import numbered_lines, write_lines
from unigen.errors import ConfigError, DataError
from unigen.generation.pipeline import DrawRequest, Pipeline
from unigen.generation.png import is_whole_image, write_png

BATCHES_AT_ONCE = 4
"""So many batches of images are drawn before they are rated, so that questions fill batches too."""


@dataclass(frozen=True)
class BestOf:
    """How many images of a prompt are drawn, and how many of them are kept."""

    num_drawn: int
    num_kept: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.num_kept <= self.num_drawn:
            raise ConfigError(f"{self} cannot be; keep at least 1 and at most as many as are drawn")

    def __str__(self) -> str:
        return f"{self.num_drawn} drawn, best {self.num_kept} kept"


@dataclass(frozen=True)
class Prompt:
    """One prompt, and where its candidates lie."""

    text: str
    folder: Path
    seeds: tuple[int, ...]
    """One a candidate."""
    item_id: str = ""
    """What a benchmark calls it."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What a benchmark says of it."""

    def path(self, sample: int) -> Path:
        """Where candidate number `sample` lies."""
        return self.folder / "samples" / f"{sample:05d}.png"


@dataclass(frozen=True)
class Candidate:
    """An image to be rated, and the prompt that it was drawn from."""

    prompt: Prompt
    image: Image.Image


@dataclass(frozen=True)
class Rating:
    """How well an image shows its prompt."""

    score: float
    probability: float = 0.0
    """Orders images of equal score."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What led to the score, to be kept."""


Rater = Callable[[Sequence[Candidate]], Sequence[Rating]]
"""Rates candidates, in order. Those of one prompt are neighbours."""


def ranking(ratings: Sequence[Rating]) -> list[int]:
    """Numbers of the candidates of one prompt from best to worst: by score, then probability, then the lower number."""
    return sorted(
        range(len(ratings)), key=lambda sample: (-ratings[sample].score, -ratings[sample].probability, sample)
    )


@dataclass(frozen=True)
class Selection:
    """The candidates of one prompt, rated."""

    prompt: Prompt
    lines: list[dict[str, Any]]
    """One record a candidate, by number."""

    @property
    def kept(self) -> list[int]:
        """Numbers of the kept candidates, best first."""
        kept = [line for line in self.lines if line["is_kept"]]
        return [line["sample"] for line in sorted(kept, key=lambda line: line["rank"])]


@dataclass(frozen=True)
class BestOfN:
    """Draws, rates and selects."""

    pipeline: Pipeline
    rater: Rater
    rater_name: str
    best_of: BestOf
    batch_size: int = 16
    drawing: Mapping[str, Any] = field(default_factory=dict)
    """Settings of drawing."""

    def select(self, prompts: Iterable[Prompt]) -> Iterator[Selection]:
        """The selections of the prompts, in order; what lies in their folders already is not done again."""
        iterator = iter(prompts)
        num_prompts = max(1, BATCHES_AT_ONCE * self.batch_size // self.best_of.num_drawn)
        while group := list(islice(iterator, num_prompts)):
            found = {id(prompt): self.read(prompt) for prompt in group}
            missing = [prompt for prompt in group if found[id(prompt)] is None]
            self._draw(missing)
            found |= {id(selection.prompt): selection for selection in self._rate(missing)}
            yield from (selection for selection in found.values() if selection)

    def ratings_file(self, prompt: Prompt) -> Path:
        return prompt.folder / f"ratings_{self.rater_name}.jsonl"

    def _draw(self, prompts: Sequence[Prompt]) -> None:
        places = [
            (prompt, sample, seed)
            for prompt in prompts
            for sample, seed in enumerate(prompt.seeds)
            if not is_whole_image(prompt.path(sample))
        ]
        requests = [DrawRequest(prompt.text, seed) for prompt, _, seed in places]
        images = self.pipeline.draw_requests(requests, batch_size=self.batch_size, **self.drawing)
        for (prompt, sample, seed), image in zip(places, images, strict=True):
            made_with = {"prompt": prompt.text, "seed": seed, "model": self.pipeline.name, **self.drawing}
            write_png(image, prompt.path(sample), made_with)

    def _rate(self, prompts: Sequence[Prompt]) -> Iterator[Selection]:
        """Rate the candidates of each prompt and write their records."""
        candidates = [
            Candidate(prompt, _read_image(prompt.path(sample)))
            for prompt in prompts
            for sample in range(self.best_of.num_drawn)
        ]
        ratings = list(self.rater(candidates)) if candidates else []
        assert len(ratings) == len(candidates), "a rater gives one rating a candidate"
        for number, prompt in enumerate(prompts):
            start = number * self.best_of.num_drawn
            lines = self._records(prompt, ratings[start : start + self.best_of.num_drawn])
            write_lines(lines, self.ratings_file(prompt))
            yield Selection(prompt, lines)

    def _records(self, prompt: Prompt, ratings: Sequence[Rating]) -> list[dict[str, Any]]:
        rank = {sample: place for place, sample in enumerate(ranking(ratings))}
        return [
            {
                "item_id": prompt.item_id,
                "sample": sample,
                "prompt": prompt.text,
                "seed": prompt.seeds[sample],
                "rater": self.rater_name,
                "score": rating.score,
                "probability": rating.probability,
                **rating.details,
                "rank": rank[sample],
                "is_kept": rank[sample] < self.best_of.num_kept,
                "selection": str(self.best_of),
            }
            for sample, rating in enumerate(ratings)
        ]

    def read(self, prompt: Prompt) -> Selection | None:
        """What an earlier run said of the same candidates, if their images are still there.

        Raises:
            DataError: it wrote something else than records.
        """
        lines = read_lines(self.ratings_file(prompt))
        if lines is None or not all(is_whole_image(prompt.path(sample)) for sample in range(self.best_of.num_drawn)):
            return None
        told = [(line.get("seed"), line.get("prompt"), line.get("selection")) for line in lines]
        wanted = [(seed, prompt.text, str(self.best_of)) for seed in prompt.seeds]
        return Selection(prompt, lines) if told == wanted else None


def read_lines(path: Path) -> list[dict[str, Any]] | None:
    """The objects of a JSONL file, None where there is no file.

    Raises:
        DataError: a line is something else.
    """
    if not path.is_file():
        return None
    found = []
    for number, line in numbered_lines(path.read_text(encoding="utf-8", errors="replace")):
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {number} is not a record: {error}; delete the file to rate again") from error
    return found


def _read_image(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
