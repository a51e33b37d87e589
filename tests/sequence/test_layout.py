# SPDX-License-Identifier: Apache-2.0
"""From segments to a flat row: ids, targets, positions, documents, slots."""

import pytest

from unigen.sequence.layout import (
    IGNORED,
    PADDING,
    Document,
    Segment,
    Supervision,
    Visibility,
    codes,
    features,
    lay_out,
    text,
)

NEXT = Supervision.NEXT_TOKEN


def _supervised(*ids: int) -> Segment:
    return text(ids, supervision=NEXT)


def test_each_supervised_token_is_predicted_from_the_position_before_it() -> None:
    row = lay_out([Document(0, (text([5, 6]), _supervised(7, 8), text([9])))], 5)
    assert row.input_ids_L.tolist() == [5, 6, 7, 8, 9]
    assert row.targets_L.tolist() == [IGNORED, 7, 8, IGNORED, IGNORED]


def test_the_first_token_of_a_document_is_predicted_by_nobody_least_of_all_by_the_document_before() -> None:
    row = lay_out([Document(0, (_supervised(1, 2),)), Document(1, (_supervised(3, 4),))], 6)
    assert row.targets_L.tolist() == [2, IGNORED, 4, IGNORED, IGNORED, IGNORED]


def test_positions_restart_and_padding_belongs_to_no_document() -> None:
    row = lay_out([Document(1, (text([1, 2, 3]),)), Document(2, (text([4, 5]),))], 7)
    assert row.positions_L.tolist() == [0, 1, 2, 0, 1, 0, 0]
    assert row.documents_L.tolist() == [0, 0, 0, 1, 1, PADDING, PADDING]
    assert row.tasks_L.tolist()[:5] == [1, 1, 1, 2, 2]


def test_masked_codes_are_predicted_in_place_and_next_codes_from_the_position_before() -> None:
    masked = codes(3, supervision=Supervision.MASKED)
    following = codes(2, supervision=NEXT)
    shown = codes(2)
    row = lay_out([Document(0, (text([1]), masked, following, shown))], 8)
    assert [slots.slots_I.tolist() for slots in row.code_slots] == [[1, 2, 3], [4, 5], [6, 7]]
    assert [slots.targets_I.tolist() for slots in row.code_slots] == [[1, 2, 3], [3, 4], [IGNORED, IGNORED]]
    assert (row.targets_L == IGNORED).all()


def test_several_images_of_both_kinds_keep_their_places() -> None:
    document = Document(0, (text([1]), features(2), text([2]), features(3), codes(2)))
    row = lay_out([Document(0, (text([9]),)), document], 12)
    assert [slots.tolist() for slots in row.feature_slots] == [[2, 3], [5, 6, 7]]
    assert row.code_slots[0].slots_I.tolist() == [8, 9]


def test_blocks_are_numbered_over_the_row() -> None:
    block = Visibility.BLOCK
    image = (text([1], visibility=block), codes(1, visibility=block))
    row = lay_out([Document(0, (*image, text([2]), *image)), Document(0, (*image,))], 8)
    assert row.blocks_L.tolist() == [0, 0, PADDING, 1, 1, 2, 2, PADDING]


def test_the_prefix_ends_where_the_first_block_begins() -> None:
    prompt = text([1, 2, 3])
    assert Document(0, (prompt, codes(4, visibility=Visibility.BLOCK), text([4]))).prefix_length == 3
    assert Document(0, (prompt, text([4]))).prefix_length == 4


def test_a_segment_cannot_contradict_itself() -> None:
    with pytest.raises(AssertionError):
        text([1], supervision=Supervision.MASKED)
    with pytest.raises(AssertionError):
        lay_out([Document(0, (text([1, 2, 3]),))], 2)
