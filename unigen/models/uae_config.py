# SPDX-License-Identifier: Apache-2.0
"""What a UAE checkpoint says of itself: the sizes of its parts, and how it is talked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, Qwen2_5_VLConfig

from unigen.config.uae import CfgNull, UaeSettings
from unigen.errors import CheckpointError, ConfigError
from unigen.models.weights import read_config

RELEASED_PROJECTOR_WIDTH = 8192
SCHEDULER_FILE = Path("scheduler") / "scheduler_config.json"


class UaeConfig(PretrainedConfig):
    """Qwen2.5-VL, a projector, and the transformer and image auto-encoder of Stable Diffusion 3.5."""

    model_type = "uae"
    sub_configs = {"llm_config": Qwen2_5_VLConfig}  # noqa: RUF012 (transformers declares it so)

    llm_config: Any = None
    decoder_config: dict[str, Any] | None = None
    """Of diffusers' SD3Transformer2DModel."""
    vae_config: dict[str, Any] | None = None
    """Of diffusers' AutoencoderKL."""
    projector_width: int = RELEASED_PROJECTOR_WIDTH
    """Between the projector's two layers."""
    shift: float = 3.0
    """How far the times of sampling are moved towards noise."""
    image_resolution: int = UaeSettings.image_resolution
    decoder_text_mask: bool = UaeSettings.decoder_text_mask
    cfg_null: CfgNull = UaeSettings.cfg_null
    negative_prompt: str = UaeSettings.negative_prompt
    draw_role: str = UaeSettings.draw_role
    draw_generation_prompt: bool = UaeSettings.draw_generation_prompt
    caption_request: str = UaeSettings.caption_request

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.llm_config, Qwen2_5_VLConfig):
            self.llm_config = Qwen2_5_VLConfig(
                **{k: v for k, v in (self.llm_config or {}).items() if k != "model_type"}
            )
        self.decoder_config, self.vae_config = self.decoder_config or {}, self.vae_config or {}
        super().__post_init__(**kwargs)

    @property
    def initializer_range(self) -> float:
        """Of the language model's weights, where they are drawn."""
        return self.llm_config.text_config.initializer_range


def uae_config(
    language_model: Path,
    diffusion: Path,
    *,
    decoder: Path | None = None,
    vae: Path | None = None,
    projector_width: int = RELEASED_PROJECTOR_WIDTH,
    settings: UaeSettings | None = None,
) -> UaeConfig:
    """The configuration of a model made of these parts.

    Args:
        language_model: folder of a Qwen2.5-VL, of which the config.json is read.
        diffusion: folder of a Stable Diffusion 3.5 in diffusers' layout: `transformer`, `vae`, `scheduler`.
        decoder: folder of another transformer to take.
        vae: folder of another image auto-encoder to take.
        settings: how it is talked to; as released, where not given.
    Raises:
        CheckpointError: a part is not there, or of another kind.
        ConfigError: settings that cannot work with these parts.
    """
    content = read_config(language_model)
    if "vision_config" not in content:
        raise CheckpointError(f"{language_model} holds a language model without vision_config; give a Qwen2.5-VL")
    settings = settings or UaeSettings()
    config = UaeConfig(
        llm_config=Qwen2_5_VLConfig.from_dict({**content, "model_type": Qwen2_5_VLConfig.model_type}),
        decoder_config=diffusers_config(decoder or diffusion / "transformer", "SD3Transformer2DModel"),
        vae_config=diffusers_config(vae or diffusion / "vae", "AutoencoderKL"),
        projector_width=projector_width,
        shift=_shift(diffusion),
        **{name: getattr(settings, name) for name in UaeSettings.__dataclass_fields__},
    )
    latent_side(config, config.image_resolution)
    return config


def latent_side(config: UaeConfig, resolution: int) -> int:
    """Side of the latents of square images.

    Raises:
        ConfigError: a resolution that does not split into whole patches of latents.
    """
    assert config.vae_config is not None
    assert config.decoder_config is not None
    downsampling = 2 ** (len(config.vae_config.get("block_out_channels", (0,))) - 1)
    factor = downsampling * config.decoder_config.get("patch_size", 2)
    most = factor * config.decoder_config.get("pos_embed_max_size", 96)
    if resolution < 1 or resolution % factor or resolution > most:
        raise ConfigError(f"image_resolution is {resolution}; this model draws multiples of {factor} up to {most}")
    return resolution // downsampling


def diffusers_config(folder: Path, kind: str) -> dict[str, Any]:
    """What a folder of diffusers says of the model in it.

    Raises:
        CheckpointError: it is of another kind than `kind`.
    """
    content = read_config(folder)
    if content.get("_class_name") != kind:
        raise CheckpointError(f"{folder} holds a {content.get('_class_name')!r}; {kind} is needed")
    return {name: value for name, value in content.items() if name == "_class_name" or not name.startswith("_")}


def _shift(diffusion: Path) -> float:
    content = read_config(diffusion / SCHEDULER_FILE)
    if content.get("use_dynamic_shifting"):
        raise CheckpointError(
            f"{diffusion / SCHEDULER_FILE} shifts its times by the number of tokens, which is not supported"
        )
    return float(content.get("shift", 1.0))
