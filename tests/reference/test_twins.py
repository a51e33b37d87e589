# SPDX-License-Identifier: Apache-2.0
"""The released algorithms, written plainly in tensors, give what the twins give that go cell by cell."""

import pytest
import torch
from torch.nn import functional as F
from transformers import Qwen2Config

from unigen.bench.mixes import PT2, Mix, Texts, features_of
from unigen.bench.models import random_model, random_text
from unigen.generation.maskgit import MaskGitNoise, MaskGitSettings
from unigen.models.language import use_our_attention
from unigen.models.unigen import UniGen
from unigen.reference.losses import linear_cross_entropy_at_once, padded_loss_sums, task_losses_slowly
from unigen.reference.maskgit import draw_codes_from_whole_rows, draw_codes_slowly
from unigen.sequence.vocabulary import Vocabulary

CODES = 32


def tiny(feature_size: int = 0) -> tuple[UniGen, Vocabulary]:
    config = Qwen2Config(
        vocab_size=120,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return random_model(use_our_attention(config), CODES, feature_size=feature_size)


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
def test_whole_rows_in_a_batch_draw_what_is_drawn_image_by_image(guidance_scale: float) -> None:
    model, vocabulary = tiny()
    generator = torch.Generator().manual_seed(0)
    prompts = [random_text(vocabulary, length, generator) for length in (3, 11, 7)]
    noise = MaskGitNoise.from_seeds([1, 2, 3], 5, 16, torch.device("cpu"))
    settings = MaskGitSettings(steps=5, guidance_scale=guidance_scale)
    arguments = (model, vocabulary, prompts, random_text(vocabulary, 2, generator), noise, settings)
    assert draw_codes_from_whole_rows(*arguments).tolist() == draw_codes_slowly(*arguments).tolist()


@pytest.mark.parametrize("num_features", [0, 9])
def test_padded_rows_have_the_losses_of_rows_one_by_one(num_features: int) -> None:
    texts = {task: Texts(6, 0.5, 20) for task in PT2.counts}
    mix = Mix("tiny", 70, {"t2i": 3, "lm": 2, "mmu": 2}, texts, num_features=num_features, num_codes=16)
    model, vocabulary = tiny(feature_size=64 if num_features else 0)
    samples = mix.samples(vocabulary, seed=0)
    features = features_of([image for sample in samples for image in sample.feature_images])
    padded = padded_loss_sums(model, vocabulary, samples, mix.row_length, features)
    for task in mix.counts:
        chosen = [sample for sample in samples if sample.key == task]
        means = task_losses_slowly(model, vocabulary, chosen, _no_pixels, lambda image: image)  # type: ignore[arg-type]
        count = sum(sample.num_targets for sample in chosen)
        torch.testing.assert_close(padded[task].double(), means[task] * count, rtol=1e-5, atol=1e-5)


def _no_pixels(_: torch.Tensor) -> torch.Tensor:
    raise AssertionError("a sample holds pixels; give codes computed ahead")


def test_the_loss_at_once_is_the_textbooks() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(5, 4, generator=generator), torch.randn(9, 4, generator=generator)
    targets, weights = torch.tensor([0, 3, 8, 3, 1]), torch.rand(5, generator=generator)
    total, losses = linear_cross_entropy_at_once(hidden, weight, targets, weights)
    by_hand = -F.log_softmax(hidden @ weight.T, dim=-1)[torch.arange(5), targets]
    torch.testing.assert_close(losses, by_hand)
    torch.testing.assert_close(total, (by_hand * weights).sum())
