# SPDX-License-Identifier: Apache-2.0
"""Texts of different lengths in one batch: what follows them, and what of it may be seen."""

import torch

from unigen.models.text_states import PromptStates, join_states


def prompt(length: int, value: float) -> PromptStates:
    return PromptStates(torch.full((length, 2), value), torch.full((2,), -value))


def test_texts_are_followed_by_their_own_padding_and_what_is_visible_is_marked() -> None:
    joined = join_states([prompt(2, 1.0), prompt(4, 2.0), prompt(1, 3.0)], [3, 4, 1])
    assert joined.states_BTE[..., 0].tolist() == [[1, 1, -1, -1], [2, 2, 2, 2], [3, -3, -3, -3]]
    assert joined.is_visible_BT is not None
    assert joined.is_visible_BT.sum(dim=1).tolist() == [3, 4, 1]
    assert joined.is_visible_BT[2].tolist() == [True, False, False, False]


def test_a_batch_that_is_seen_whole_has_no_mask() -> None:
    assert join_states([prompt(2, 1.0), prompt(3, 2.0)], [3, 3]).is_visible_BT is None


def test_a_blank_is_as_long_as_its_text_and_zero() -> None:
    blank = prompt(3, 1.0).blank()
    assert blank.length == 3
    assert float(blank.states_TE.abs().max()) == float(blank.padding_E.abs().max()) == 0
