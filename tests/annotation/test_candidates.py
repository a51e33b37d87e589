# SPDX-License-Identifier: Apache-2.0
"""Candidates have a seed of their own each, and are drawn once."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.annotation.painter import Painter
from unigen.annotation.candidates import LIST_NAME, Candidates, find_candidates
from unigen.annotation.prompts import Prompt
from unigen.annotation.step import Outcome, run_step
from unigen.data.shapes.prompts import training_prompts
from unigen.errors import EvaluationError

ENTRIES = training_prompts(np.random.default_rng(0))[:6]
PROMPTS = [Prompt(entry["id"], entry["prompt"], entry) for entry in ENTRIES]


def draw(folder: Path, painter: Painter, num_prompts: int = 6, **settings: int) -> Outcome:
    options = {"num_images": 3, "seed": 0, "batch_size": 4, **settings}
    step = Candidates(PROMPTS[:num_prompts], "hash", painter, folder, drawing={}, **options)
    return run_step(step, folder / LIST_NAME)


def test_images_are_named_by_prompt_and_number_and_listed_in_order(tmp_path: Path) -> None:
    outcome = draw(tmp_path, Painter(ENTRIES))
    assert [line["filename"] for line in outcome.lines[:4]] == [
        "train-00000_0.png",
        "train-00000_1.png",
        "train-00000_2.png",
        "train-00001_0.png",
    ]
    assert {name: len(paths) for name, paths in find_candidates(tmp_path).items()} == {one.id: 3 for one in PROMPTS}
    assert len({line["seed"] for line in outcome.lines}) == 18


def test_an_image_depends_on_seed_prompt_and_number_alone(tmp_path: Path) -> None:
    draw(tmp_path / "all", Painter(ENTRIES))
    draw(tmp_path / "few", Painter(ENTRIES), num_prompts=2, num_images=2, batch_size=1)
    for file in (tmp_path / "few").glob("*.png"):
        assert file.read_bytes() == (tmp_path / "all" / file.name).read_bytes()
    draw(tmp_path / "other", Painter(ENTRIES), num_prompts=2, seed=1)
    assert (tmp_path / "other/train-00000_0.png").read_bytes() != (tmp_path / "all/train-00000_0.png").read_bytes()


def test_drawing_goes_on_where_it_stopped_and_draws_what_was_lost_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path, Painter(ENTRIES, stop_after=7))
    rest = Painter(ENTRIES)
    outcome = draw(tmp_path, rest)
    assert (rest.num_drawn, outcome.num_kept) == (11, 7)
    content = (tmp_path / "train-00002_1.png").read_bytes()
    (tmp_path / "train-00002_1.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "train-00003_0.png").unlink()
    mending = Painter(ENTRIES)
    draw(tmp_path, mending)
    assert mending.num_drawn == 2
    assert (tmp_path / "train-00002_1.png").read_bytes() == content
    names = [json.loads(line)["filename"] for line in (tmp_path / LIST_NAME).read_text().splitlines()]
    assert len(names) == len(set(names)) == 18


def test_another_seed_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, Painter(ENTRIES))
    with pytest.raises(EvaluationError, match="seed was 0 and is now 1"):
        draw(tmp_path, Painter(ENTRIES), seed=1)
