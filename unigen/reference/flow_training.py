# SPDX-License-Identifier: Apache-2.0
"""Flow matching of one image by its formulas: no batch, no padding, every text through the language model alone.

Legend: T tokens, C channels, h w sides of a latent.
"""

import math
from typing import Any

import torch
from torch import Tensor

from unigen.data.batch import Sample


def flow_loss(model: Any, sample: Sample, *, mean: float, std: float, weighting: str) -> Tensor:
    """The loss of one image, with gradient.

    Args:
        model: a Uae.
        sample: with its pixels, words and draws.
        mean, std: of the normal distribution whose sigmoid is the time.
    """
    drawing = sample.drawing
    assert drawing is not None
    assert sample.target_image is not None
    time = 1 / (1 + math.exp(-(mean + std * drawing.time_normal)))
    posterior = model.vae.encode(sample.target_image[None]).latent_dist
    generator = torch.Generator().manual_seed(drawing.seed)
    noise_Chw = torch.randn(posterior.mean.shape[1:], generator=generator)
    latents_Chw = posterior.mean[0] + posterior.std[0] * torch.randn(noise_Chw.shape, generator=generator)
    data_Chw = ((latents_Chw - model.vae.config.shift_factor) * model.vae.config.scaling_factor).detach()
    ids_1T = torch.tensor(drawing.prompt_ids)[None]
    states_1TE = model.projector(model.llm.model(input_ids=ids_1T, use_cache=False).last_hidden_state)
    velocity_Chw = model.decoder(
        hidden_states=((1 - time) * data_Chw + time * noise_Chw)[None],
        encoder_hidden_states=states_1TE * (0.0 if drawing.is_blank else 1.0),
        pooled_projections=model.pooled_embedding[None],
        timestep=torch.tensor([1000.0 * time]),
    ).sample[0]
    error = ((velocity_Chw - (noise_Chw - data_Chw)) ** 2).mean()
    if weighting == "cosmap":
        return error * 2 / (math.pi * ((1 - time) ** 2 + time**2))
    return error / time**2 if weighting == "sigma_sqrt" else error
