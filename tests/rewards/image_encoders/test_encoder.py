# SPDX-License-Identifier: Apache-2.0
"""Features that a stage trains through: those of the images themselves, with a true gradient, and nothing that it could train."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.rewards.pictures import pictures
from tests.tiny_encoders import MAKERS, SIDE, kind_of
from unigen.rewards.image_encoders.loading import load_encoder

EVERY_ENCODER = pytest.mark.parametrize("name", sorted(MAKERS))


def pixels_of(images: list[Image.Image]) -> Tensor:
    """Pixels (N, 3, H, W) in [-1, 1] of images of one size."""
    values_NHW3 = torch.stack([torch.from_numpy(np.asarray(image, dtype=np.float32)) for image in images])
    return (values_NHW3 / 127.5 - 1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - {"dinov2"}))
def test_pixels_of_the_networks_size_have_the_features_of_their_images(encoders: Path, name: str) -> None:
    encoder = load_encoder(kind_of(name), name, encoders)
    images = [image.resize((SIDE, SIDE)) for image in pictures(3)]
    torch.testing.assert_close(encoder.features(pixels_of(images)), encoder.encode(images), rtol=1e-4, atol=1e-5)


@EVERY_ENCODER
def test_larger_pixels_are_resized_to_nearly_the_same_features(encoders: Path, name: str) -> None:
    encoder = load_encoder(kind_of(name), name, encoders)
    images = [image.resize((96, 96), Image.Resampling.BICUBIC) for image in pictures(4)]
    features_ND = encoder.features(pixels_of(images))
    small = [image.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in images]
    cosines_NN = features_ND @ encoder.features(pixels_of(small)).T
    assert cosines_NN.diagonal().min() > 0.9999
    torch.testing.assert_close(features_ND.norm(dim=-1), torch.ones(4))


def test_whole_images_are_squeezed_whatever_their_shape(encoders: Path) -> None:
    encoder = load_encoder("clip", "clip", encoders)
    wide = pictures(1)[0]
    squeezed = wide.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    cosine = (encoder.features(pixels_of([wide])) * encoder.features(pixels_of([squeezed]))).sum()
    assert cosine > 0.9999


@EVERY_ENCODER
def test_the_gradient_of_the_pixels_is_that_of_finite_differences(encoders: Path, name: str) -> None:
    encoder = load_encoder(kind_of(name), name, encoders)
    encoder.network.double()
    pixels = pixels_of([image.resize((40, 40)) for image in pictures(1)]).double().requires_grad_()
    target = encoder.features(pixels_of([pictures(2)[1].resize((40, 40))]))
    (gradient,) = torch.autograd.grad((encoder.features(pixels) * target).sum(), pixels)
    step = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead, behind = ((encoder.features(pixels + sign * 1e-5 * step) * target).sum() for sign in (1, -1))
    slope = ((ahead - behind) / 2e-5).item()
    assert (gradient * step).sum().item() == pytest.approx(slope, rel=1e-5)
    assert abs(slope) > 1e-6


@EVERY_ENCODER
def test_it_is_frozen_and_counts_in_float32_under_autocast(encoders: Path, name: str) -> None:
    encoder = load_encoder(kind_of(name), name, encoders)
    images = pictures(1)
    plain = encoder.encode(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.encode(images), plain)
    assert not encoder.network.training
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())
    assert not isinstance(encoder, torch.nn.Module)


@EVERY_ENCODER
def test_a_manifest_knows_the_weights_by_their_hash_and_how_images_are_shown(encoders: Path, name: str) -> None:
    identity = load_encoder(kind_of(name), name, encoders).identity
    assert (identity["kind"], identity["folder"], identity["size"]) == (kind_of(name), name, [SIDE, SIDE])
    assert len(identity["weights"]) == 64
    assert identity["preprocessing"]
