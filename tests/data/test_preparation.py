# SPDX-License-Identifier: Apache-2.0
"""From a record to a row: templates, masks, prompt drops, images."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from unigen.data.draws import Draws
from unigen.data.preparation import CaptionedImagePreparer, ImagePreparer, PairPreparer, RowPreparer, VisionPreparation
from unigen.data.sample import RawSample, Turn
from unigen.data.shapes.tokenizer import train_tokenizer
from unigen.sequence.layout import Kind, Supervision
from unigen.sequence.templates.unigen import UnigenTemplate
from unigen.sequence.vocabulary import Vocabulary

IMAGE = Image.new("RGB", (48, 32), (255, 0, 0))
TALL = Image.new("RGB", (32, 64), (0, 0, 255))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(400)


@pytest.fixture(scope="module")
def preparer(tokenizer: PreTrainedTokenizerBase) -> RowPreparer:
    vocabulary = Vocabulary.from_tokenizer(tokenizer, 64)
    return RowPreparer(UnigenTemplate(tokenizer, vocabulary, 16, 147), 32, 0.0, "cosine", 0.0)


def draws(key: str = "a", visit: int = 0, seed: int = 0) -> Draws:
    return Draws(seed, key, visit)


def caption(content: str = "a red circle") -> RawSample:
    return RawSample("a", "t2i", (IMAGE,), content)


def conversation(*images: Image.Image) -> RawSample:
    turns = (Turn("user", "what?"), Turn("assistant", "a circle"), Turn("user", "sure?"), Turn("assistant", "yes"))
    return RawSample("a", "mmu", images, turns=turns)


def words_of(preparer: RowPreparer, sample: object) -> str:
    ids = [token for segment in sample.document.segments for token in segment.token_ids]  # type: ignore[attr-defined]
    return str(preparer.template.tokenizer.decode(ids))


def test_a_caption_becomes_a_drawing_row_with_a_masked_image(preparer: RowPreparer) -> None:
    sample = preparer(caption(), draws())
    (image,) = sample.code_images
    assert "a red circle" in words_of(preparer, sample)
    assert image.content.shape == (3, 32, 32)
    assert image.mask_I is not None
    assert 1 <= image.mask_I.sum() <= 16
    assert sample.num_targets == image.mask_I.sum()


def test_masks_depend_on_key_visit_and_seed_and_on_nothing_else(preparer: RowPreparer) -> None:
    def masks(**changed: object) -> bytes:
        found = [preparer(caption(), draws(**{"key": f"k{n}", **changed})) for n in range(8)]  # type: ignore[arg-type]
        return np.stack([one.code_images[0].mask_I for one in found]).tobytes()

    assert masks() == masks()
    assert len({masks(), masks(visit=1), masks(seed=1)}) == 3
    assert len(set(np.frombuffer(masks(), dtype=bool).reshape(8, 16).sum(1))) > 1


def test_dropped_prompts_keep_the_template_and_come_at_their_rate(preparer: RowPreparer) -> None:
    half = replace(preparer, prompt_drop_prob=0.5)
    rows = [half(caption(), draws(f"key {number}")) for number in range(200)]
    dropped = [row for row in rows if "red" not in words_of(half, row)]
    assert 70 < len(dropped) < 130
    assert "assistant" in words_of(half, dropped[0])
    assert all("red" in words_of(preparer, preparer(caption(), draws(f"key {n}"))) for n in range(50))


def test_whether_a_prompt_is_dropped_says_nothing_about_its_mask(preparer: RowPreparer) -> None:
    always, never = replace(preparer, prompt_drop_prob=0.999), preparer
    for number in range(5):
        masks = [one(caption(), draws(f"{number}")).code_images[0].mask_I for one in (always, never)]
        assert np.array_equal(masks[0], masks[1])


def test_the_least_share_of_masked_codes_is_kept(preparer: RowPreparer) -> None:
    most = replace(preparer, min_mask_ratio=0.75)
    assert all(most(caption(), draws(str(n))).code_images[0].mask_I.sum() >= 12 for n in range(50))


def test_a_long_caption_keeps_the_header_of_the_assistant(preparer: RowPreparer) -> None:
    sample = preparer(caption("very " * 300), draws())
    assert sample.document.length == 147
    assert words_of(preparer, sample).count("<|im_start|>assistant\n") == 1


def test_conversations_without_a_vision_tower_read_codes_of_every_image(preparer: RowPreparer) -> None:
    sample = preparer(conversation(IMAGE, TALL), draws())
    assert [one.content.shape for one in sample.code_images] == [(3, 32, 32)] * 2
    assert all(one.mask_I is None for one in sample.code_images)
    assert sum(segment.kind is Kind.CODES for segment in sample.document.segments) == 2


def test_conversations_with_a_vision_tower_have_as_many_features_as_each_image_gives(preparer: RowPreparer) -> None:
    tower = VisionPreparation(preprocess=lambda image: image.size, num_features=lambda size: size[1] // 8)
    sample = replace(preparer, vision=tower)(conversation(IMAGE, TALL), draws())
    assert sample.feature_images == ((48, 32), (32, 64))
    lengths = [segment.length for segment in sample.document.segments if segment.kind is Kind.FEATURES]
    assert lengths == [4, 8]
    supervised = [one for one in sample.document.segments if one.supervision is Supervision.NEXT_TOKEN]
    answers = [preparer.template.tokenizer.decode(list(one.token_ids)) for one in supervised]
    assert answers == ["<|im_start|>assistant\na circle<|im_end|>\n", "<|im_start|>assistant\nyes<|im_end|>\n"]


def test_a_conversation_without_images_is_a_row_of_text(preparer: RowPreparer) -> None:
    tower = VisionPreparation(preprocess=lambda image: image, num_features=lambda image: 4)
    sample = replace(preparer, vision=tower)(conversation(), draws())
    assert {segment.kind for segment in sample.document.segments} == {Kind.TEXT}
    assert sample.feature_images == ()


def test_text_is_supervised_from_its_second_token(preparer: RowPreparer) -> None:
    sample = preparer(RawSample("a", "lm", text="a circle and a square"), draws())
    assert sample.num_targets == sample.document.length - 1


def test_images_to_rebuild_are_square_and_in_range() -> None:
    sample = ImagePreparer(16)(caption(), draws())
    assert sample.target_image is not None
    assert sample.target_image.shape == (3, 16, 16)
    torch.testing.assert_close(sample.target_image[:, 0, 0], torch.tensor([1.0, -1.0, -1.0]))


def test_captioned_images_keep_their_words() -> None:
    sample = CaptionedImagePreparer(lambda image: image.size)(caption("two stars"), draws())
    assert (sample.caption, sample.feature_images) == ("two stars", ((48, 32),))


def preference(number: int = 0) -> RawSample:
    return RawSample(str(number), "t2i", (IMAGE, TALL), "a red circle")


@pytest.mark.parametrize("pairing", ["shared", "released"])
def test_a_preference_becomes_two_rows_of_one_prompt(
    preparer: RowPreparer, pairing: Literal["shared", "released"]
) -> None:
    sample = PairPreparer(preparer, pairing)(preference(), draws(visit=3))
    assert sample.rejected is not None
    assert sample.visit == 3
    assert words_of(preparer, sample) == words_of(preparer, sample.rejected)
    for row, image in ((sample, IMAGE), (sample.rejected, TALL)):
        expected = preparer(replace(caption(), images=(image,)), draws()).code_images[0]
        assert torch.equal(torch.as_tensor(row.code_images[0].content), torch.as_tensor(expected.content))


def test_the_images_of_a_pair_share_mask_and_prompt_drop(preparer: RowPreparer) -> None:
    """Those of all visits to all records; with `released` half of the drops differ, and masks and their ratios too."""
    half = replace(preparer, prompt_drop_prob=0.5)
    keys = [(str(number), visit) for number in range(20) for visit in range(2)]
    for pairing in ("shared", "released"):
        prepare = PairPreparer(half, pairing)
        samples = [prepare(preference(), draws(key, visit)) for key, visit in keys]
        rows = [(one, one.rejected) for one in samples if one.rejected is not None]
        masks = [[row.code_images[0].mask_I for row in pair] for pair in rows]
        same_masks = [np.array_equal(*pair) for pair in masks]
        same_ratios = [first.sum() == second.sum() for first, second in masks]
        same_drops = [first.document.length == second.document.length for first, second in rows]
        assert len({first.document.length for first, _ in rows}) == 2, "some prompts are dropped, some are not"
        assert len({first.tobytes() for first, _ in masks}) > 30, "visits and records differ"
        if pairing == "shared":
            assert all(same_masks + same_ratios + same_drops)
        else:
            assert sum(same_masks) < 10
            assert sum(same_ratios) < 20
            assert 10 < sum(same_drops) < 30
