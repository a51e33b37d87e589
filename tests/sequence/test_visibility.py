# SPDX-License-Identifier: Apache-2.0
"""Who sees whom: each kind of row, the renderings against the plain definition, and nothing across documents."""

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, create_mask

from unigen.reference.visibility import dense_mask_slowly
from unigen.sequence.layout import Document, Segment, Visibility, codes, features, lay_out, text
from unigen.sequence.visibility import SHORT_ROW, DocumentMasks, Visible

BLOCK, OPEN = Visibility.BLOCK, Visibility.OPEN


def _visible(*rows: list[Document], length: int) -> Visible:
    layouts = [lay_out(row, length) for row in rows]
    return Visible(
        torch.from_numpy(np.stack([row.documents_L for row in layouts])),
        torch.from_numpy(np.stack([row.blocks_L for row in layouts])),
        torch.from_numpy(np.stack([row.open_L for row in layouts])),
    )


def _document(*segments: Segment) -> Document:
    return Document(0, segments)


def _drawing(num_words: int = 3, num_codes: int = 4) -> Document:
    return _document(
        text(range(num_words)),
        text([7], visibility=BLOCK),
        codes(num_codes, visibility=BLOCK),
        text([8], visibility=BLOCK),
    )


def _seen(visible: Visible) -> np.ndarray:
    return visible.dense()[0, 0].numpy()


def test_text_is_causal() -> None:
    seen = _seen(_visible([_document(text(range(5)))], length=5))
    assert (seen == np.tril(np.ones((5, 5), dtype=bool))).all()


def test_a_drawn_image_sees_all_of_itself_and_its_prompt_and_the_prompt_sees_none_of_it() -> None:
    seen = _seen(_visible([_drawing()], length=9))
    assert seen[3:, :].all()
    assert not seen[:3, 3:].any()
    assert (seen[:3, :3] == np.tril(np.ones((3, 3), dtype=bool))).all()


def test_codes_to_be_read_are_seen_by_every_row() -> None:
    row = _document(
        text([1, 2], visibility=OPEN), codes(4, visibility=OPEN), text([3], visibility=OPEN), text([4, 5, 6])
    )
    seen = _seen(_visible([row], length=10))
    assert seen[:, :7].all()
    assert (seen[:, 7:] == np.tril(np.ones((10, 10), dtype=bool))[:, 7:]).all()


def test_features_are_seen_by_the_rows_before_them_and_the_tokens_around_them_are_causal() -> None:
    row = _document(text([1, 2, 3]), features(4, visibility=OPEN), text([4, 5]))
    seen = _seen(_visible([row], length=9))
    assert seen[:, 3:7].all()
    assert not seen[:7, 7:].any()
    assert not seen[0, 1:3].any()


def test_two_images_of_one_document_are_two_blocks() -> None:
    row = _document(text([1]), codes(2, visibility=BLOCK), text([2]), codes(2, visibility=BLOCK))
    seen = _seen(_visible([row], length=6))
    assert seen[1, 2]
    assert not seen[1, 4]
    assert seen[4, 1]
    assert seen[4, 5]


def test_no_document_sees_another() -> None:
    seen = _seen(_visible([_drawing(), _document(text(range(3))), _drawing(2)], length=24))
    documents = np.repeat([0, 1, 2, -1], [9, 3, 8, 4])
    assert not seen[documents[:, None] != documents[None, :]].any()


def test_no_row_of_attention_is_empty_not_even_padding() -> None:
    visible = _visible([_drawing()], length=16)
    assert visible.dense().any(-1).all()


def _random_documents(generator: np.random.Generator, budget: int) -> list[Document]:
    documents: list[Document] = []
    left = budget
    while left > 8:
        segments: list[Segment] = []
        for _ in range(int(generator.integers(1, 6))):
            size = int(generator.integers(1, 5))
            how = list(Visibility)[int(generator.integers(3))]
            kind = int(generator.integers(3))
            if kind == 0:
                segments.append(text(range(size), visibility=how))
            elif kind == 1:
                segments.append(codes(size, visibility=how))
            else:
                segments.append(features(size, visibility=how))
        document = _document(*segments)
        if document.length > left:
            break
        documents.append(document)
        left -= document.length
    return documents


@pytest.mark.parametrize("seed", range(6))
def test_the_dense_mask_equals_the_plain_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    visible = _visible(_random_documents(generator, 40), _random_documents(generator, 40), length=40)
    assert torch.equal(visible.dense(), dense_mask_slowly(visible))


@pytest.mark.parametrize("seed", range(3))
def test_the_rule_for_block_masks_equals_the_dense_mask(seed: int) -> None:
    generator = np.random.default_rng(seed)
    length = 256
    visible = _visible(_random_documents(generator, length), _random_documents(generator, length), length=length)
    rule = visible._rule()
    assert torch.equal(create_mask(rule, 2, None, length, length, device="cpu").expand(2, 1, -1, -1), visible.dense())
    blocks = create_block_mask(rule, 2, None, length, length, device="cpu", BLOCK_SIZE=64)
    expected = visible.dense().view(2, 1, 4, 64, 4, 64).any(dim=(3, 5))
    assert torch.equal(blocks.to_dense().bool().expand_as(expected), expected)


def test_batches_of_one_shape_share_one_rule_which_reads_the_newest() -> None:
    """FlexAttention compiles its mask function anew for every new function object."""
    generator = np.random.default_rng(0)
    first, second = (_visible(_random_documents(generator, 64), length=64) for _ in range(2))
    assert not torch.equal(first.dense(), second.dense())
    rules = []
    for visible in (first, second):
        rule = visible._standing_rule()
        rules.append(rule)
        assert torch.equal(create_mask(rule, 1, None, 64, 64, device="cpu"), visible.dense())
    assert rules[0] is rules[1]
    assert _visible(_random_documents(generator, 32), length=32)._standing_rule() is not rules[0]


@pytest.mark.parametrize("seed", range(3))
def test_the_masks_of_documents_are_the_dense_mask_without_what_is_empty(seed: int) -> None:
    generator = np.random.default_rng(seed)
    visible = _visible(_random_documents(generator, 40), _random_documents(generator, 40), length=44)
    dense, put_together = visible.dense(), torch.zeros(2, 1, 44, 44, dtype=torch.bool)
    for row, documents in enumerate(visible.by_document().rows):
        for one in documents:
            causal = torch.ones(one.stop - one.start, one.stop - one.start, dtype=torch.bool).tril()
            place = slice(one.start, one.stop)
            put_together[row, 0, place, place] = causal if one.seen_11LL is None else one.seen_11LL[0, 0]
    is_real = visible.documents_RL >= 0
    assert torch.equal(put_together, dense & is_real[:, None, :, None])


def test_attention_goes_document_by_document_in_long_rows_where_flex_attention_has_no_backward() -> None:
    documents = [_drawing(), _document(text([1, 2]))]
    assert isinstance(_visible(documents, length=14).mask(), torch.Tensor)
    mask = _visible(documents, length=SHORT_ROW + 1).mask()
    assert isinstance(mask, DocumentMasks)
    ((drawing, words),) = mask.rows
    assert (drawing.start, drawing.stop, words.start, words.stop) == (0, 9, 9, 11)
    assert drawing.seen_11LL is not None
    assert words.seen_11LL is None, "running text is causal, and needs no mask"
