# SPDX-License-Identifier: Apache-2.0
"""The patch discriminator judges each image on its own."""

import torch

from unigen.models.discriminator import PatchDiscriminator


def test_logits_of_an_image_do_not_depend_on_the_rest_of_the_batch() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(base_channels=16, num_downsamples=2, norm_groups=8)
    images = torch.randn(3, 3, 32, 32)
    logits = discriminator(images)
    assert logits.shape == (3, 1, 6, 6)
    torch.testing.assert_close(logits[1:2], discriminator(images[1:2]), rtol=1e-4, atol=1e-5)
