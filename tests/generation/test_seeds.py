# SPDX-License-Identifier: Apache-2.0
"""Seeds and noise belong to an image, whatever else is drawn beside it."""

import hashlib

import torch

from unigen.generation.maskgit import MaskGitNoise
from unigen.generation.seeds import image_seed, uniform_noise


def test_a_seed_is_a_stable_function_of_base_item_and_sample() -> None:
    digest = hashlib.sha256(b"v1|0|a red circle|3").hexdigest()
    assert image_seed(0, "a red circle", 3) == int(digest, 16) >> (256 - 63)
    seeds = {image_seed(base, item, sample) for base in (0, 1) for item in ("a", "b") for sample in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_rows_noise_does_not_depend_on_its_neighbours() -> None:
    together = uniform_noise([3, 1, 2], 4, 5)
    assert torch.equal(together[1], uniform_noise([1], 4, 5)[0])
    assert torch.equal(together[[2, 0, 1]], uniform_noise([2, 3, 1], 4, 5))


def test_noise_stays_inside_the_open_unit_interval() -> None:
    noise = uniform_noise(list(range(8)), 100, 100)
    assert 0 < float(noise.min()) < float(noise.max()) < 1


def test_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    noise = MaskGitNoise.from_seeds([1, 2], 3, 4, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(noise.tokens_BSI, noise.confidence_BSI)
