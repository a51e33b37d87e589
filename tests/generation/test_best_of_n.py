# SPDX-License-Identifier: Apache-2.0
"""Best-of-N draws once, rates once, keeps the best, and goes on where it was stopped."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unigen.errors import ConfigError, DataError
from unigen.generation.best_of_n import BestOf, BestOfN, Candidate, Prompt, Rating
from unigen.generation.pipeline import DrawRequest, Pipeline


class Painter(Pipeline):
    """Paints the seed as a shade of grey; breaks off after so many images."""

    name = "painter"
    ask_requests = describe = None  # type: ignore[assignment]

    def __init__(self, stop_after: int | None = None) -> None:
        self.drawn: list[DrawRequest] = []
        self._stop_after = stop_after

    def draw_requests(
        self,
        requests: Iterable[DrawRequest],
        *,
        batch_size: int = 16,
        on_step: Callable[[int], None] = lambda step: None,
        **settings: Any,
    ) -> Iterator[Image.Image]:
        for request in requests:
            if self._stop_after is not None and len(self.drawn) >= self._stop_after:
                raise KeyboardInterrupt
            self.drawn.append(request)
            yield Image.new("RGB", (4, 4), (request.seed,) * 3)


class Brightness:
    """Rates by the shade of grey; breaks off after so many calls."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rated: list[int] = []
        self._calls, self._stop_after = 0, stop_after

    def __call__(self, candidates: Sequence[Candidate]) -> list[Rating]:
        if self._stop_after is not None and self._calls >= self._stop_after:
            raise KeyboardInterrupt
        self._calls += 1
        shades = [candidate.image.getpixel((0, 0))[0] for candidate in candidates]
        self.rated += shades
        return [Rating(shade, details={"shade": shade}) for shade in shades]


SEEDS = [(10, 30, 20), (60, 40, 50), (70, 70, 80), (90, 95, 90)]


def prompts(folder: Path) -> list[Prompt]:
    return [Prompt(f"prompt {index}", folder / f"{index:05d}", seeds) for index, seeds in enumerate(SEEDS)]


def select(folder: Path, painter: Painter, rater: Brightness, kept: int = 2) -> list[list[int]]:
    run = BestOfN(painter, rater, "brightness", BestOf(3, kept), batch_size=1)
    return [selection.kept for selection in run.select(prompts(folder))]


BEST = [[1, 2], [0, 2], [2, 0], [1, 0]]


def test_the_best_are_kept_and_ties_go_to_the_lower_number(tmp_path: Path) -> None:
    assert select(tmp_path, Painter(), Brightness()) == BEST


def test_every_candidate_has_its_line(tmp_path: Path) -> None:
    select(tmp_path, Painter(), Brightness())
    lines = [json.loads(line) for line in (tmp_path / "00000/ratings_brightness.jsonl").read_text().splitlines()]
    assert [(line["sample"], line["seed"], line["shade"], line["rank"], line["is_kept"]) for line in lines] == [
        (0, 10, 10, 2, False),
        (1, 30, 30, 0, True),
        (2, 20, 20, 1, True),
    ]
    assert {line["selection"] for line in lines} == {"3 drawn, best 2 kept"}
    assert sorted(path.name for path in (tmp_path / "00003/samples").iterdir()) == [f"0000{k}.png" for k in range(3)]


@pytest.mark.parametrize("after", range(13))
def test_a_run_stopped_while_drawing_goes_on_without_drawing_anything_twice(after: int, tmp_path: Path) -> None:
    painter = Painter(stop_after=after)
    if after < 12:
        with pytest.raises(KeyboardInterrupt):
            select(tmp_path, painter, Brightness())
    rest = Painter()
    assert select(tmp_path, rest, Brightness()) == BEST
    assert [one.seed for one in painter.drawn + rest.drawn] == [seed for seeds in SEEDS for seed in seeds]


def test_a_run_stopped_while_rating_rates_no_prompt_twice(tmp_path: Path) -> None:
    rater = Brightness(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        select(tmp_path, Painter(), rater)
    painter, rest = Painter(), Brightness()
    assert select(tmp_path, painter, rest) == BEST
    assert sorted(rater.rated + rest.rated) == sorted(seed for seeds in SEEDS for seed in seeds)
    assert len(painter.drawn) < 12


def test_a_finished_run_does_nothing_again(tmp_path: Path) -> None:
    select(tmp_path, Painter(), Brightness())
    painter, rater = Painter(), Brightness()
    assert select(tmp_path, painter, rater) == BEST
    assert painter.drawn == rater.rated == []


def test_what_is_damaged_or_of_another_selection_is_done_again(tmp_path: Path) -> None:
    select(tmp_path, Painter(), Brightness())
    image = tmp_path / "00001/samples/00002.png"
    image.write_bytes(image.read_bytes()[:40])
    painter, rater = Painter(), Brightness()
    assert select(tmp_path, painter, rater) == BEST
    assert ([one.seed for one in painter.drawn], rater.rated) == ([50], [60, 40, 50])
    assert select(tmp_path, Painter(), rater, kept=1) == [best[:1] for best in BEST]
    (tmp_path / "00000/ratings_brightness.jsonl").write_text("{\n")
    with pytest.raises(DataError, match="line 1 is not a record"):
        select(tmp_path, Painter(), Brightness())


@pytest.mark.parametrize("numbers", [(0, 0), (4, 5), (3, 0)])
def test_a_selection_that_cannot_be_is_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"{numbers[0]} drawn, best {numbers[1]} kept cannot be"):
        BestOf(*numbers)
