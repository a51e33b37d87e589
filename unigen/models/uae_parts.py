# SPDX-License-Identifier: Apache-2.0
"""A UAE for training, put together from parts of other makers: Qwen2.5-VL, Stable Diffusion 3.5, a projector that is new."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from unigen.config.uae import UaeSettings
from unigen.models.pooled_prompt import pooled_empty_prompt
from unigen.models.projector import Projector
from unigen.models.uae import Uae, load_diffusers
from unigen.models.uae_checkpoints import assemble
from unigen.models.uae_config import RELEASED_PROJECTOR_WIDTH, UaeConfig, diffusers_config, uae_config
from unigen.models.uae_names import PROJECTOR
from unigen.models.uae_release import PROJECTOR_BIAS, renamed
from unigen.models.weights import load_exactly, read_weights

KINDS = {"decoder": "SD3Transformer2DModel", "vae": "AutoencoderKL"}
"""Parts that may be exchanged one by one, and what diffusers calls them."""


@dataclass(frozen=True)
class PartFolders:
    """Where the parts lie."""

    language_model: Path
    """A Qwen2.5-VL, or the language model of a UAE, which brings its projector."""
    diffusion: Path
    """Stable Diffusion 3.5 in diffusers' layout."""
    decoder: Path | None = None
    """In the place of `diffusion/transformer`."""
    vae: Path | None = None
    """In the place of `diffusion/vae`."""
    projector_width: int = RELEASED_PROJECTOR_WIDTH
    settings: UaeSettings = field(default_factory=UaeSettings)
    """How the model is used."""

    def config(self) -> UaeConfig:
        """Sizes of the whole.

        Raises:
            CheckpointError, ConfigError: parts of another kind, or that do not fit together.
        """
        return uae_config(
            self.language_model,
            self.diffusion,
            decoder=self.decoder,
            vae=self.vae,
            projector_width=self.projector_width,
            settings=self.settings,
        )


def put_together(folders: PartFolders) -> Uae:
    """The model of these weights in float32, in evaluation mode; a language model without projector gets a new one.

    Raises:
        CheckpointError: weights that are missing or do not fit.
    """
    config, weights = folders.config(), renamed(read_weights(folders.language_model))
    if PROJECTOR_BIAS in weights:
        config.projector_width = weights[PROJECTOR_BIAS].shape[0]
    else:
        weights |= _new_projector(config)
    decoder, vae = folders.decoder or folders.diffusion / "transformer", folders.vae or folders.diffusion / "vae"
    for part, folder in (("decoder", decoder), ("vae", vae)):
        weights |= {f"{part}.{name}": tensor for name, tensor in read_weights(folder).items()}
    weights["pooled_embedding"] = pooled_empty_prompt(folders.diffusion)
    return assemble(config, weights, folders.language_model, torch.float32)


def exchange_part(model: Uae, part: str, folder: Path) -> None:
    """Take the decoder or the image auto-encoder (`part` of KINDS) of a folder in diffusers' layout, with its weights.

    Raises:
        CheckpointError: a folder of another kind, or weights that do not fit.
    """
    described = diffusers_config(folder, KINDS[part])
    taken: nn.Module = getattr(load_diffusers(), KINDS[part]).from_config(described)
    load_exactly(taken, read_weights(folder), folder)
    if part == "decoder":
        model.set_decoder(taken)
    else:
        model.vae = taken.requires_grad_(False)
    setattr(model.config, f"{part}_config", described)


def _new_projector(config: UaeConfig) -> dict[str, Tensor]:
    assert config.decoder_config is not None
    widths = (config.llm_config.text_config.hidden_size, config.decoder_config["joint_attention_dim"])
    drawn = Projector(*widths, hidden_features=config.projector_width)
    return {f"{PROJECTOR}{name}": tensor.to(torch.float32) for name, tensor in drawn.state_dict().items()}
