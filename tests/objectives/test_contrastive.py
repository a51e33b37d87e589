# SPDX-License-Identifier: Apache-2.0
"""The sigmoid loss against transformers' SigLIP and its handling of equal captions."""

import torch
from transformers import SiglipConfig, SiglipModel

from unigen.objectives.contrastive import sigmoid_loss

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_mean_over_images_is_the_loss_of_transformers() -> None:
    torch.manual_seed(0)
    text = SIZES | {"vocab_size": 20, "max_position_embeddings": 8}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=SIZES | {"image_size": 8, "patch_size": 4}))
    with torch.no_grad():
        output = model(torch.randint(0, 20, (5, 8)), torch.randn(5, 3, 8, 8), return_loss=True)
        images, texts = output.vision_model_output.pooler_output, output.text_model_output.pooler_output
        loss = sigmoid_loss(images, texts, model.logit_scale, model.logit_bias)
    assert loss.shape == (5,)
    torch.testing.assert_close(loss.mean(), output.loss)


def test_an_equal_caption_is_no_negative_when_it_is_marked() -> None:
    features = torch.eye(3)
    texts = torch.stack([features[0], features[0], features[2]])  # images 0 and 1 share their caption
    images = torch.stack([features[0], features[0], features[2]])
    same = (texts[:, None] == texts).all(-1)
    scale, bias = torch.tensor(3.0), torch.tensor(-10.0)
    plain, marked = sigmoid_loss(images, texts, scale, bias), sigmoid_loss(images, texts, scale, bias, same)
    assert (marked[:2] < 0.1).all()
    assert (plain[:2] > 5).all()
    torch.testing.assert_close(plain[2], marked[2])
