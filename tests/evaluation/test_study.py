# SPDX-License-Identifier: Apache-2.0
"""Stages side by side: what their scores, differences and intervals mean."""

from pathlib import Path

import numpy as np
import pytest

from unigen.errors import EvaluationError
from unigen.evaluation.geneval.summary import Graded
from unigen.evaluation.items import Item
from unigen.evaluation.records import RecordWriter
from unigen.evaluation.study import Arm, difference, graded_answers


def graded(verdicts: dict[tuple[str, int], list[bool]]) -> list[Graded]:
    return [Graded(prompt, tag, correct) for (tag, prompt), found in verdicts.items() for correct in found]


def test_the_score_is_the_mean_over_tags_of_all_seeds_together() -> None:
    first = graded({("colors", 0): [True, True], ("colors", 1): [False, False], ("counting", 2): [True, True]})
    second = graded({("colors", 0): [False, False], ("colors", 1): [False, False], ("counting", 2): [True, False]})
    summary = Arm("dpo", [first, second]).summary()
    assert summary["tags"] == {"counting": 0.75, "colors": 0.25}
    assert summary["mean"] == pytest.approx(0.5)
    assert summary["seeds"] == [pytest.approx(0.75), pytest.approx(0.25)]
    assert summary["low"] <= summary["mean"] <= summary["high"]


def test_the_difference_is_taken_prompt_by_prompt_so_that_hard_prompts_do_not_blur_it() -> None:
    """Prompts differ widely, but every one is a little better: the paired interval is far from 0, unpaired ones overlap."""
    rng = np.random.default_rng(0)
    worse, better = {}, {}
    for prompt in range(60):
        right = int(rng.integers(0, 8))
        worse["colors", prompt] = [index < right for index in range(8)]
        better["colors", prompt] = [index < right + 1 for index in range(8)]
    first, second = Arm("a", [graded(better)]), Arm("b", [graded(worse)])
    found = difference(first, second)
    assert found.value == pytest.approx(1 / 8)
    assert found.low == pytest.approx(1 / 8)
    assert second.score.high > first.score.low


def test_the_difference_is_that_of_the_scores_whatever_the_number_of_seeds() -> None:
    single = Arm("sft", [graded({("colors", 0): [True, False], ("counting", 1): [False, False]})])
    double = Arm(
        "dpo",
        [
            graded({("colors", 0): [True, True], ("counting", 1): [True, False]}),
            graded({("colors", 0): [True, False], ("counting", 1): [False, False]}),
        ],
    )
    assert difference(double, single).value == pytest.approx(double.score.value - single.score.value)


def test_other_prompts_are_refused_by_name() -> None:
    first, second = Arm("dpo", [graded({("colors", 0): [True]})]), Arm("sft", [graded({("colors", 1): [True]})])
    with pytest.raises(EvaluationError, match="dpo and sft were scored on different prompts"):
        difference(first, second)


def test_a_question_counts_once_however_many_are_asked_about_an_image(tmp_path: Path) -> None:
    """Three questions about one image and one about another: the mean is over questions, the resampling over images."""
    images = ["a.png", "a.png", "a.png", "b.png"]
    for name, right in (("ours", [True, True, True, False]), ("theirs", [False, False, True, True])):
        writer = RecordWriter(tmp_path / name, 0)
        for number, (image, correct) in enumerate(zip(images, right, strict=True)):
            writer.append(Item(number, 0, seed=1), {"image": image, "correct": correct})
            writer.append(Item(number, 1, seed=1), {"image": "other.png", "correct": True})  # not looking
    ours, theirs = (Arm.read(name, [tmp_path / name], graded_answers) for name in ("ours", "theirs"))
    assert (ours.score.value, theirs.score.value) == (0.75, 0.5)
    found = difference(ours, theirs)
    assert found.value == pytest.approx(0.25)
    assert (found.low, found.high) == (pytest.approx(-1.0), pytest.approx(2 / 3))


def write(folder: Path, prompts: list[int]) -> Path:
    writer = RecordWriter(folder, 0)
    for prompt in prompts:
        writer.append(Item(prompt, 0, seed=1), {"tag": "colors", "correct": prompt == 0})
    return folder


def test_an_arm_is_read_from_the_records_of_its_seeds(tmp_path: Path) -> None:
    arm = Arm.read("dpo", [write(tmp_path / "seed-0", [0, 1]), write(tmp_path / "seed-1", [0, 1])])
    assert [len(seed) for seed in arm.seeds] == [2, 2]
    assert arm.score.value == 0.5


def test_seeds_over_other_prompts_and_empty_folders_are_refused(tmp_path: Path) -> None:
    folders = [write(tmp_path / "seed-0", [0, 1]), write(tmp_path / "seed-1", [0])]
    with pytest.raises(EvaluationError, match="seed-1 is over other prompts than"):
        Arm.read("dpo", folders)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EvaluationError, match="nothing holds no records"):
        Arm.read("dpo", [tmp_path / "nothing"])
