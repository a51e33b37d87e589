# SPDX-License-Identifier: Apache-2.0
"""Samples packed into batches: slots, targets, counts."""

import numpy as np
import torch

from unigen.data.batch import Batch, CodeImage, Sample, collate, count_targets, fill_codes, pack_batches
from unigen.sequence.layout import IGNORED, PADDING, Document, Supervision, Visibility, codes, features, text
from unigen.sequence.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    code_offset=100,
    codebook_size=16,
    pad_id=0,
    start_of_image=90,
    end_of_image=91,
    draw_task=92,
    read_task=93,
    message_start=94,
    message_end=95,
)
NEXT = Supervision.NEXT_TOKEN


def drawing(key: str = "draw", mask: tuple[bool, ...] = (True, False, True, True)) -> Sample:
    """Three words, an image of four codes of which some are masked, the end of the image."""
    block = Visibility.BLOCK
    image = CodeImage(torch.full((3, 2, 2), 0.5), np.array(mask))
    segments = (
        text([1, 2, 3]),
        codes(4, visibility=block, supervision=Supervision.MASKED),
        text([91], visibility=block),
    )
    return Sample(key, Document(0, segments), (image,))


def reading(key: str = "read", num_images: int = 1) -> Sample:
    """Images of four codes, one word between them, and four supervised words."""
    segments = [text([7])]
    for _ in range(num_images):
        segments += [codes(4, visibility=Visibility.OPEN), text([91], visibility=Visibility.OPEN)]
    images = tuple(CodeImage(torch.zeros(3, 2, 2)) for _ in range(num_images))
    return Sample(key, Document(1, (*segments, text([10, 11, 12, 13], supervision=NEXT))), images)


def seeing(key: str = "see", counts: tuple[int, ...] = (3,)) -> Sample:
    """Vision features of each image, then two supervised words."""
    seen = tuple(features(count, visibility=Visibility.OPEN) for count in counts)
    segments = (text([5]), *seen, text([20, 21], supervision=NEXT))
    return Sample(key, Document(1, segments), feature_images=tuple(f"image {number}" for number in range(len(counts))))


def words(key: str = "text", length: int = 3) -> Sample:
    return Sample(key, Document(2, (text(range(30, 30 + length), supervision=NEXT),)))


def filled(batch: Batch) -> Batch:
    """With codes 0, 1, 2, ... over all images."""
    count, size = batch.code_slots_NI.shape
    return fill_codes(batch, torch.arange(count * size).view(count, size) % 16, VOCABULARY)


def num_actual_targets(batch: Batch) -> int:
    return int((batch.targets_RL != IGNORED).sum())


def test_codes_go_to_their_slots_and_masked_ones_become_the_mask_and_the_target() -> None:
    batch = filled(collate([[words()], [drawing()]]))
    mask = VOCABULARY.mask_id
    assert batch.input_ids_RL[1, :8].tolist() == [1, 2, 3, mask, 101, mask, mask, 91]
    assert batch.targets_RL[1, :8].tolist() == [IGNORED] * 3 + [100, IGNORED, 102, 103, IGNORED]
    assert batch.input_ids_RL[0, :3].tolist() == [30, 31, 32]


def test_codes_that_are_read_are_neither_masked_nor_targets() -> None:
    batch = filled(collate([[reading()]]))
    assert batch.input_ids_RL[0].tolist() == [7, 100, 101, 102, 103, 91, 10, 11, 12, 13]
    assert batch.targets_RL[0].tolist() == [IGNORED] * 5 + [10, 11, 12, 13, IGNORED]


def test_filling_leaves_the_batch_itself_alone() -> None:
    batch = collate([[drawing()]])
    before = batch.input_ids_RL.clone(), batch.targets_RL.clone()
    filled(batch)
    assert torch.equal(batch.input_ids_RL, before[0])
    assert torch.equal(batch.targets_RL, before[1])


def test_supervised_positions_are_known_before_the_codes_are() -> None:
    batch = collate([[drawing(), reading()], [words(), seeing()], [reading(num_images=2)]])
    known = sorted(batch.supervised_T.tolist())
    actual = (filled(batch).targets_RL.flatten() != IGNORED).nonzero()[:, 0].tolist()
    assert known == actual


def test_the_counts_of_targets_are_the_targets_of_the_batch() -> None:
    samples = [
        drawing(),
        drawing(mask=(True,) * 4),
        reading(),
        reading(num_images=2),
        seeing(),
        words(),
        words(length=1),
    ]
    for sample in samples:
        assert sample.num_targets == num_actual_targets(filled(collate([[sample]]))), sample.key
    assert count_targets(samples) == {"t2i": 3 + 4, "mmu": 4 + 4 + 2, "lm": 2}
    assert num_actual_targets(filled(collate([samples]))) == sum(count_targets(samples).values())


def test_a_task_without_targets_has_no_count() -> None:
    assert count_targets([words(length=1)]) == {}


def test_several_images_of_a_row_get_their_own_slots() -> None:
    batch = filled(collate([[words(), reading(num_images=2)], [reading()]]))
    assert len(batch.code_images) == 3
    assert batch.input_ids_RL[0, 4:8].tolist() == [100, 101, 102, 103]
    assert batch.input_ids_RL[0, 9:13].tolist() == [104, 105, 106, 107]
    assert batch.input_ids_RL[1, 1:5].tolist() == [108, 109, 110, 111]


def test_features_of_several_images_fill_their_slots_in_order() -> None:
    batch = collate([[words(), seeing(counts=(3, 2))], [seeing()]])
    length = batch.input_ids_RL.shape[1]
    assert batch.feature_images == ["image 0", "image 1", "image 0"]
    assert batch.feature_slots_K.tolist() == [4, 5, 6, 7, 8, length + 1, length + 2, length + 3]


def test_a_batch_may_carry_target_images_and_captions() -> None:
    target = torch.ones(3, 8, 8)
    sample = Sample("made", Document(1, (text([1, 2]),)), target_image=target, caption="a red circle")
    batch = collate([[sample, words()]])
    assert len(batch.target_images) == 1
    assert batch.target_images[0] is target
    assert batch.captions == ["a red circle", ""]
    assert batch.to("cpu").target_images[0].shape == (3, 8, 8)


def test_keys_name_every_sample_in_order() -> None:
    assert collate([[words("a"), words("b")], [words("c")]]).keys == ["a", "b", "c"]


def test_padding_belongs_to_no_document_and_counts_for_nothing() -> None:
    batch = collate([[words(length=5)], [words(length=2)]])
    assert batch.visible.documents_RL[1].tolist() == [0, 0, PADDING, PADDING, PADDING]
    assert batch.num_tokens == 7
    assert num_actual_targets(batch) == 4 + 1


def test_rows_are_packed_whole_within_their_budget() -> None:
    samples = [words(str(number), length=3 + number % 5) for number in range(20)]
    batches = list(pack_batches(samples, tokens_per_row=10, rows_per_batch=3))
    assert sorted(key for batch in batches for key in batch.keys) == sorted(sample.key for sample in samples)
    assert all(batch.input_ids_RL.shape[0] <= 3 and batch.input_ids_RL.shape[1] <= 10 for batch in batches)
    assert sum(batch.num_tokens for batch in batches) == sum(sample.document.length for sample in samples)
    assert sum(len(batch.input_ids_RL) for batch in batches) < len(samples)


def test_rows_in_multiples_are_equally_long_and_hold_the_same_samples() -> None:
    samples = [words(f"{index}", length=3) for index in range(8)]
    batches = list(pack_batches(samples, tokens_per_row=20, rows_per_batch=1, length_multiple=4))
    assert [batch.input_ids_RL.shape for batch in batches] == [(1, 12), (1, 12)]
    assert [batch.num_tokens for batch in batches] == [12, 12]
    assert sorted(key for batch in batches for key in batch.keys) == [sample.key for sample in samples]


def test_positions_restart_in_each_document() -> None:
    batch = collate([[words(length=3), words(length=2)]])
    assert batch.positions_RL[0].tolist() == [0, 1, 2, 0, 1]
    assert batch.targets_RL[0].tolist() == [31, 32, IGNORED, 31, IGNORED], "nothing is predicted across documents"
