# SPDX-License-Identifier: Apache-2.0
"""An image's wall time is its share of what its batch took, whatever is done with images between."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.painter import Painter
from unigen.evaluation.drawings import draw_items, drawing_record
from unigen.evaluation.items import expand
from unigen.evaluation.job import Job, Options
from unigen.generation.pipeline import DrawRequest, in_batches


class Slow(Painter):
    """Draws batches, each image in a tenth of a second of a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0

    def draw_requests(
        self, requests: Iterable[DrawRequest], *, batch_size: int = 16, **settings: Any
    ) -> Iterator[Image.Image]:
        for batch in in_batches(requests, batch_size):
            self.clock += 0.1 * len(batch)
            yield from super().draw_requests(batch)


def test_a_batch_shares_its_time_equally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    monkeypatch.setattr(time, "perf_counter", lambda: slow.clock)
    job = Job(slow, Options(output=tmp_path, batch_size=3), tmp_path, slow.describe())
    items = expand("any", 7, 1, 0)
    seconds = []
    for drawing in draw_items(job, items, lambda item: "a cup", lambda item: Path(f"{item.index}.png"), "any", []):
        slow.clock += 5.0  # what is done with an image is not its drawing
        seconds.append(drawing_record(job, drawing, "a cup", Path("a.png"))["seconds"])
    assert seconds == pytest.approx([0.1] * 7)
