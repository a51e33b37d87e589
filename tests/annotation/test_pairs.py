# SPDX-License-Identifier: Apache-2.0
"""Preferences are made of images of one prompt that differ in score."""

from pathlib import Path

import pytest
from PIL import Image

from unigen.annotation.pairs import PairRule, Pairs, choose_pairs
from unigen.annotation.step import Failed, run_step
from unigen.annotation.verdicts import RatedImage, RatedPrompt, read_rated
from unigen.errors import DataError


def rated(*scores: float, name: str = "a") -> RatedPrompt:
    images = [RatedImage(f"{name}_{index}.png", ("q?",), (score == 1,), score) for index, score in enumerate(scores)]
    return RatedPrompt(name, f"prompt {name}", tuple(images))


def names(prompt: RatedPrompt, **rule: float) -> list[tuple[str, str]]:
    return [(good.filename[2], bad.filename[2]) for good, bad in choose_pairs(prompt, PairRule(**rule))]  # type: ignore[arg-type]


def test_the_best_is_paired_with_the_worst_and_of_equals_the_first_is_better() -> None:
    assert names(rated(0.5, 1.0, 0.0, 1.0)) == [("1", "2")]
    assert names(rated(0.0, 1.0, 0.0)) == [("1", "2")]


def test_several_pairs_use_no_image_twice() -> None:
    assert names(rated(0.5, 1.0, 0.0, 0.75, 0.25), pairs_per_prompt=5) == [("1", "2"), ("3", "4")]


def test_equal_images_a_small_margin_and_a_bad_best_give_no_pair() -> None:
    assert names(rated(1.0, 1.0)) == []
    assert names(rated(1.0)) == []
    assert names(rated(1.0, 0.75), min_margin=0.5) == []
    assert names(rated(1.0, 0.5), min_margin=0.5) == [("0", "1")]
    assert names(rated(0.75, 0.0), min_chosen_score=1.0) == []


def test_records_name_images_from_the_folder_of_their_file(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(2):
        Image.new("RGB", (8, 8)).save(images / f"a_{index}.png")
    output = tmp_path / "dpo" / "deep" / "pairs.jsonl"
    outcome = run_step(Pairs([rated(0.0, 1.0)], "hash", images, output, PairRule()), output)
    (line,) = outcome.lines
    assert line["chosen"] == "../../images/a_1.png"
    assert (output.parent / line["rejected"]).resolve() == (images / "a_0.png").resolve()
    assert (line["prompt"], line["chosen_score"], line["rejected_score"]) == ("prompt a", 1.0, 0.0)


def test_a_missing_image_fails_its_prompt_alone(tmp_path: Path) -> None:
    output = tmp_path / "pairs.jsonl"
    step = Pairs([rated(0.0, 1.0)], "hash", tmp_path, output, PairRule())
    (result,) = step.work(step.units())
    assert isinstance(result, Failed)
    assert "a_1.png" in result.reason


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"filename": "a.png"}', "no 'prompt'"),
        ('{"id": "a", "filename": "a", "prompt": "p", "question": ["q?"], "answer": [], "score": 1}', "other answers"),
        ('{"id": "a", "filename": "a", "prompt": "p", "question": [], "answer": [], "score": 1}', "other answers"),
        ("", "holds no answer"),
    ],
)
def test_answers_that_are_none_are_refused(line: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=complaint):
        read_rated(tmp_path / "answers.jsonl")
