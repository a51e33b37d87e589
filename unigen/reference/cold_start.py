# SPDX-License-Identifier: Apache-2.0
"""UAE's cold start by its formulas: image by image, every text alone, and all activations of all steps held."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unigen.data.batch import Sample
from unigen.models.text_states import PromptStates
from unigen.reference.flow_sampling import draw_slowly


def cold_loss(
    model: Any,
    sample: Sample,
    null_ids: Sequence[int],
    features: Callable[[Tensor], Tensor],
    *,
    sigmas: Sequence[float],
    scale: float,
    latent_shape: Sequence[int],
    padding_id: int,
) -> Tensor:
    """1 - cosine of the features of an image and of what is drawn from its words, with gradient.

    Args:
        model: a Uae.
        null_ids: what guidance leads away from.
        sigmas: times of the drawing.
    """
    drawing = sample.drawing
    assert drawing is not None
    assert sample.target_image is not None
    prompt, null = (_states(model, ids, padding_id) for ids in (drawing.prompt_ids.tolist(), list(null_ids)))
    noise = torch.randn(tuple(latent_shape), generator=torch.Generator().manual_seed(drawing.seed))[None]
    latents = draw_slowly(model, [prompt], null, scale, noise, sigmas, is_masked=model.config.decoder_text_mask)
    vae = model.vae
    pixels = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample
    found, wanted = features(pixels)[0], features(sample.target_image[None].to(pixels.dtype))[0].detach()
    return 1 - (found @ wanted) / (found.norm() * wanted.norm())


def _states(model: Any, ids: list[int], padding_id: int) -> PromptStates:
    """The states of a text, and that of a token of padding behind it, which sees the text and stands at position 1."""
    ids_1T = torch.tensor([[*ids, padding_id]])
    positions = torch.tensor([*range(len(ids)), 1]).expand(3, 1, -1)
    mask = torch.tensor([[1] * len(ids) + [0]])
    hidden = model.llm.model(input_ids=ids_1T, attention_mask=mask, position_ids=positions, use_cache=False)
    states_TE = model.projector(hidden.last_hidden_state[0])
    return PromptStates(states_TE[:-1], states_TE[-1])
