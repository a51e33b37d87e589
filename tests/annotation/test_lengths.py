# SPDX-License-Identifier: Apache-2.0
"""The lengths of captions, counted and drawn."""

import json
from pathlib import Path

from PIL import Image

from unigen.annotation.lengths import length_histogram, write_lengths


def test_every_caption_is_in_one_bin_and_the_goal_itself_counts(tmp_path: Path) -> None:
    histogram = length_histogram([0, 24, 25, 249, 250, 400], 250)
    assert sum(histogram["counts"]) == histogram["num_captions"] == 6
    assert (histogram["counts"][0], histogram["counts"][1], histogram["counts"][9]) == (2, 1, 1)
    assert histogram["share_at_goal"] == 2 / 6
    assert histogram["median"] == 137
    write_lengths(histogram, tmp_path)
    assert json.loads((tmp_path / "lengths.json").read_text()) == histogram
    with Image.open(tmp_path / "lengths.png") as picture:
        assert picture.width > 300


def test_no_caption_is_an_empty_histogram(tmp_path: Path) -> None:
    histogram = length_histogram([], 250)
    assert (histogram["counts"], histogram["mean"], histogram["share_at_goal"]) == ([], None, None)
    write_lengths(histogram, tmp_path)
