# SPDX-License-Identifier: Apache-2.0
"""The names of the classes, in the detector's order."""

from pathlib import Path

import pytest

from unigen.evaluation.geneval.classes import CLASS_NAMES

OFFICIAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "geneval_object_names.txt"


def test_there_are_80_names_and_three_are_spelled_otherwise_than_in_coco() -> None:
    assert len(set(CLASS_NAMES)) == 80
    assert (CLASS_NAMES[0], CLASS_NAMES[79]) == ("person", "toothbrush")
    assert CLASS_NAMES[64:67] == ("computer mouse", "tv remote", "computer keyboard")
    assert [CLASS_NAMES[index] for index in (57, 58, 60, 62, 78)] == [
        *("couch", "potted plant", "dining table", "tv", "hair drier")
    ]


@pytest.mark.skipif(not OFFICIAL.is_file(), reason="the official list is not here")
def test_the_names_are_those_of_the_official_list() -> None:
    assert list(CLASS_NAMES) == OFFICIAL.read_text().splitlines()
