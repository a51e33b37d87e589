# SPDX-License-Identifier: Apache-2.0
"""Likeness in batches is the likeness of pairs, for every encoder, whatever the order and the size of the batches."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPModel, SiglipModel

from tests.rewards.pictures import pictures
from tests.tiny_encoders import MAKERS, kind_of
from unigen.errors import ConfigError
from unigen.reference.image_similarity import similarity_slowly
from unigen.rewards.image_encoders.loading import load_encoder
from unigen.rewards.image_similarity import similarities, similarities_to_texts

EVERY_ENCODER = pytest.mark.parametrize("name", sorted(MAKERS))
TEXTS = ["a red circle", "two blue squares left of it", "a red circle"]


@EVERY_ENCODER
def test_batches_give_what_pairs_one_by_one_give(encoders: Path, name: str) -> None:
    images, originals = pictures(4), pictures(4, seed=1)
    folder = encoders / "checkpoints" / name
    found = similarities(load_encoder(kind_of(name), folder), images, originals, batch_size=3)
    slowly = [similarity_slowly(kind_of(name), folder, *pair) for pair in zip(images, originals, strict=True)]
    assert found.tolist() == pytest.approx(slowly, rel=1e-5, abs=1e-6)
    assert found.std() > 1e-3, "these encoders tell the images apart"


@EVERY_ENCODER
def test_an_image_is_as_like_itself_as_can_be(encoders: Path, name: str) -> None:
    images = pictures(3)
    copies = [image.copy() for image in images]
    assert similarities(load_encoder(kind_of(name), name, encoders), images, copies).tolist() == pytest.approx(
        [1.0] * 3
    )


def test_neither_order_nor_batches_nor_a_shared_original_change_anything(encoders: Path) -> None:
    encoder = load_encoder("clip", "clip", encoders)
    images, (original, other) = pictures(5), pictures(2, seed=1)
    originals = [original, original, other, original.copy(), other]
    expected = similarities(encoder, images, originals, batch_size=1)
    for batch_size in (2, 64):
        torch.testing.assert_close(similarities(encoder, images, originals, batch_size), expected)
    backwards = similarities(encoder, images[::-1], originals[::-1])
    torch.testing.assert_close(backwards.flip(0), expected)


def test_an_original_of_many_images_is_encoded_once(encoders: Path) -> None:
    encoder = load_encoder("clip", "clip", encoders)
    seen = []
    encoder.network.vision_model.register_forward_pre_hook(
        lambda _, arguments, named: seen.append(len(named["pixel_values"])), with_kwargs=True
    )
    similarities(encoder, pictures(6), pictures(1, seed=1) * 6)
    assert sum(seen) == 7


def test_clip_rates_words_as_the_whole_model_does(encoders: Path) -> None:
    encoder = load_encoder("clip", "clip", encoders)
    images = pictures(3)
    model = CLIPModel.from_pretrained(encoders / "checkpoints" / "clip")
    slowly = []
    for image, text in zip(images, TEXTS, strict=True):
        words = encoder._tokenizer([text], return_tensors="pt")
        found = model(**words, pixel_values=encoder.view.prepare(image)[None])
        slowly.append((found.logits_per_image / model.logit_scale.exp()).item())
    assert similarities_to_texts(encoder, images, TEXTS, batch_size=2).tolist() == pytest.approx(slowly, rel=1e-5)


def test_siglip_rates_words_padded_to_their_full_length(encoders: Path) -> None:
    encoder = load_encoder("siglip", "siglip", encoders)
    images = pictures(3)
    model = SiglipModel.from_pretrained(encoders / "checkpoints" / "siglip")
    slowly = []
    for image, text in zip(images, TEXTS, strict=True):
        words = encoder._tokenizer(text, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
        found = model(input_ids=words.input_ids, pixel_values=encoder.view.prepare(image)[None])
        slowly.append((found.image_embeds @ found.text_embeds.T).item())
    assert similarities_to_texts(encoder, images, TEXTS).tolist() == pytest.approx(slowly, rel=1e-5)


def test_open_clip_reads_words_and_cuts_those_that_are_too_long(encoders: Path) -> None:
    encoder = load_encoder("clip", "open_clip", encoders)
    image = pictures(1)[0]
    long_text = "a red circle " * 100
    found = similarities_to_texts(encoder, [image] * 3, ["a red circle", "a blue square", long_text])
    assert len({round(value, 5) for value in found.tolist()}) == 3
    direct = encoder.network.encode_text(encoder._tokenizer(["a red circle"]), normalize=True)
    assert found[0].item() == pytest.approx((encoder.encode([image]) @ direct.T).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["dinov2", "dinov3", "longclip"])
def test_an_encoder_without_a_text_half_says_so(encoders: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"the encoder {name} in .* reads no text"):
        similarities_to_texts(load_encoder(kind_of(name), name, encoders), pictures(1), ["a circle"])
