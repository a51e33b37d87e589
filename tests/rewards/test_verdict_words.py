# SPDX-License-Identifier: Apache-2.0
"""Yes and no count as words alone; what of a reply is looked at is the first word, or the first of the two."""

import pytest

from unigen.rewards.verdict_words import first_verdict, leading_verdict


@pytest.mark.parametrize(
    ("reply", "leading", "first"),
    [
        ("yes", True, True),
        ("Yes.", True, True),
        ("\n YES", True, True),
        (" **YES** it is", True, True),
        ("_Yes_", True, True),
        ("no", False, False),
        ("No, though yes would be nice", False, False),
        ("Answer: yes", None, True),
        ("It is. Yes", None, True),
        ("eyes", None, None),
        ("yesterday", None, None),
        ("yes2", None, None),
        ("nothing is known", None, None),
        ("maybe", None, None),
        ("", None, None),
    ],
)
def test_yes_and_no_count_as_words_of_their_own(reply: str, leading: bool | None, first: bool | None) -> None:
    assert leading_verdict(reply) is leading
    assert first_verdict(reply) is first
