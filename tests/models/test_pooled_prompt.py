# SPDX-License-Identifier: Apache-2.0
"""The pooled embedding of the empty prompt is the one that diffusers' pipeline computes, without T5."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from tests.tiny_uae import released_uae
from unigen.models.pooled_prompt import LENGTH, pooled_empty_prompt


def test_the_pooled_embedding_is_that_of_diffusers_pipeline(tmp_path: Path) -> None:
    released_uae(tmp_path)
    folder = tmp_path / "SD3"
    first, second = (
        CLIPTextModelWithProjection.from_pretrained(folder / f"text_encoder{number}") for number in ("", "_2")
    )
    words = [CLIPTokenizer.from_pretrained(folder / f"tokenizer{n}", model_max_length=LENGTH) for n in ("", "_2")]
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel.from_pretrained(tmp_path / "dit"),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=first.eval(),
        tokenizer=words[0],
        text_encoder_2=second.eval(),
        tokenizer_2=words[1],
        text_encoder_3=None,
        tokenizer_3=None,
    )
    with torch.no_grad():
        found = pipeline.encode_prompt("", None, None, do_classifier_free_guidance=False)
    torch.testing.assert_close(pooled_empty_prompt(folder), found[2][0])
