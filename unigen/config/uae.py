# SPDX-License-Identifier: Apache-2.0
"""UAE: how a model of this family is talked to, and the parts that a released one is put together from.

What the release does is the default. Its own words for the two prompts are not known here: these say the same.
"""

from dataclasses import dataclass
from typing import Literal

from unigen.config.missing import MISSING

CfgNull = Literal["negative_prompt", "empty_prompt", "zeros"]


@dataclass(frozen=True)
class UaePrompting:
    """How a model of this family is talked to."""

    decoder_text_mask: bool = False
    """Hide the padding of the shorter of a prompt and its negative from the decoder. The release does not, so both are as long as
    the longer of them."""
    cfg_null: CfgNull = "negative_prompt"
    """What guidance leads away from: the states of `negative_prompt`, of an empty prompt, or zeros."""
    negative_prompt: str = "Generate a random, low-quality, ugly, blurry, bad image in anime or cartoon style."
    """Goes through the language model like any prompt."""
    draw_role: str = "generate"
    """Role of the message that holds a prompt to be drawn."""
    draw_generation_prompt: bool = True
    """Whether the head of an answer follows that message. Not known of the release; this is the common way."""
    caption_request: str = (
        "Describe this picture completely in words. Write out all text that can be read in it, inside double quotes."
    )
    """What asks for a caption; the image follows it."""


@dataclass(frozen=True)
class UaeModelConfig(UaePrompting):
    """What a training run puts a model together from, beside `model.language_model` (a Qwen2.5-VL)."""

    diffusion: str = "stable-diffusion-3.5-large"
    """Stable Diffusion 3.5 in diffusers' layout: `transformer`, `vae`, `scheduler`, and the two CLIPs for the empty prompt."""
    decoder: str | None = None
    """Folder of another SD3 transformer, whose weights are always loaded; null takes that of `diffusion`."""
    vae: str | None = None
    """Folder of another image auto-encoder, whose weights are always loaded; null takes that of `diffusion`."""
    projector_width: int = 8192
    """Between the projector's two layers."""


@dataclass(frozen=True)
class UaeSettings(UaePrompting):
    """What a checkpoint says of its use. Each is also a field of its config.json."""

    image_resolution: int = 1024
    """Side in pixels of the square images that are drawn."""


@dataclass(frozen=True)
class UaeParts(UaeSettings):
    """The file `model.yaml` of a released model: its six folders, and what the release leaves to its users' knowledge."""

    SD3: str = MISSING
    """Stable Diffusion 3.5 in diffusers' layout; of it are read `vae`, `scheduler`, the two CLIPs and, without `dit`, the
    `transformer`. T5 is never loaded."""
    dit: str | None = None
    """Folder of the pre-trained SD3 transformer; null takes that of `SD3`."""
    dit_lora: str | None = None
    """Adapter of peft for it; null for none."""
    llm: str = MISSING
    """Folder of Qwen2.5-VL with the projector."""
    llm_lora: str | None = None
    """Weights of the language model with its adapter around its layers, as shards of safetensors; null for none."""
    llm_lora_alpha: int = 64
    """Scale of that adapter times its rank, which no file of it says."""
    llm_processor: str = MISSING
    """Folder of tokenizer, chat template and image processor."""
