# SPDX-License-Identifier: Apache-2.0
"""The pooled embedding of the empty prompt by the two CLIPs of Stable Diffusion 3.5: all that UAE takes of its text encoders."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModelWithProjection
from transformers.utils.logging import disable_progress_bar

from unigen.errors import CheckpointError

ENCODERS = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))
LENGTH = 77
"""What CLIP reads; shorter texts are padded to it."""


@torch.no_grad()
def pooled_empty_prompt(diffusion: Path) -> Tensor:
    """The projected embeddings (P,) of both, one after the other, in float32.

    Args:
        diffusion: a folder in diffusers' layout; its T5 is not read.
    Raises:
        CheckpointError: an encoder or a tokenizer is missing or cannot be read.
    """
    return torch.cat([_embedding(diffusion / encoder, diffusion / tokenizer) for encoder, tokenizer in ENCODERS])


def _embedding(encoder: Path, tokenizer: Path) -> Tensor:
    if not (encoder / "config.json").is_file():  # transformers would take the sizes of another encoder
        raise CheckpointError(f"cannot load the text encoder {encoder}: it has no config.json; fetch the whole folder")
    try:
        disable_progress_bar()  # of a small model's weights, in the middle of what the command says
        words = AutoTokenizer.from_pretrained(tokenizer)
        model = CLIPTextModelWithProjection.from_pretrained(encoder, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot load the text encoder {encoder}: {str(error).splitlines()[0]}") from error
    ids_1T = words("", padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
    return model.eval()(ids_1T).text_embeds[0]
