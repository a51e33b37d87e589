# SPDX-License-Identifier: Apache-2.0
"""UAE: Qwen2.5-VL reads, a projector hands the states of its tokens on, and the decoder of Stable Diffusion 3.5 draws from them.

Source: arXiv 2509.09666. Weight names: `llm.*` (Qwen2_5_VLForConditionalGeneration), `projector.{0,2}.*`, `decoder.*`
(SD3Transformer2DModel), `vae.*` (AutoencoderKL), `pooled_embedding`.
Legend: B samples, T tokens, D width of the language model, E width that the decoder reads, C channels, h w sides of a latent,
H W of an image, P width of the pooled embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedModel, Qwen2_5_VLForConditionalGeneration

from unigen.errors import ConfigError
from unigen.models.joint_attention import MaskedJointAttention
from unigen.models.precision import without_autocast
from unigen.models.projector import Projector
from unigen.models.text_states import PromptStates, TextStates
from unigen.models.uae_config import UaeConfig

PADDING_POSITION = 1
"""Where transformers 4.50, with which UAE was released, puts padding behind a text."""
TIME_SCALE = 1000
"""The decoder reads times as the steps of its training schedule are numbered."""


def load_diffusers() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import diffusers  # takes seconds, and no other family needs it
    except ImportError as error:
        raise ConfigError("models of the family uae need diffusers; run: bash scripts/setup.sh uae") from error
    return diffusers


class Uae(PreTrainedModel):
    """The parts, and what one gives to the next. Knows no chat template, no objective and no way of sampling."""

    config_class = UaeConfig
    config: UaeConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _no_split_modules = ["Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock", "JointTransformerBlock"]  # noqa: RUF012
    _supports_sdpa = True

    pooled_embedding: Tensor
    """Of the empty prompt, (P,): the same for every text."""

    def __init__(self, config: UaeConfig) -> None:
        super().__init__(config)
        self.llm = Qwen2_5_VLForConditionalGeneration(config.llm_config)
        self.set_decoder(load_diffusers().SD3Transformer2DModel.from_config(config.decoder_config))
        self.vae = load_diffusers().AutoencoderKL.from_config(config.vae_config).requires_grad_(False)
        width, sizes = config.llm_config.text_config.hidden_size, self.decoder.config
        self.projector = Projector(width, sizes.joint_attention_dim, hidden_features=config.projector_width)
        self.register_buffer("pooled_embedding", torch.zeros(sizes.pooled_projection_dim))
        for part in (self.decoder, self.vae, self.projector):
            for module in part.modules():
                module._is_hf_initialized = True  # they start as their own libraries draw them
        self.post_init()

    def set_decoder(self, decoder: Any) -> None:
        """Take an SD3 transformer."""
        decoder.set_attn_processor(MaskedJointAttention())
        self.decoder = decoder

    def hold_vae_apart(self) -> nn.Module:
        """Make the image auto-encoder no part of this module any more, which goes on to use it: it is then neither wrapped nor
        sharded nor rounded nor moved with the rest. Whoever saves the model adds its weights."""
        vae = self._modules.pop("vae")
        assert vae is not None
        self.__dict__["vae"] = vae  # past nn.Module, which would make it a part again
        return vae

    def prompt_states(self, prompts: Sequence[Sequence[int]], padding_id: int) -> list[PromptStates]:
        """Projected states of texts given as token ids; what a text's states are does not depend on the others.

        Behind each text stands one token of padding, which sees the text and is seen by nothing.
        """
        lengths = [len(ids) for ids in prompts]
        width, device = max(lengths) + 1, self.device
        ids_BT = torch.stack([F.pad(torch.tensor(ids), (0, width - len(ids)), value=padding_id) for ids in prompts])
        places_T = torch.arange(width, device=device)
        is_text_BT = places_T < torch.tensor(lengths, device=device)[:, None]
        positions_BT = torch.where(is_text_BT, places_T, PADDING_POSITION)
        hidden_BTD = self.hidden_states(
            ids_BT.to(device), is_text_BT.long(), position_ids=positions_BT.expand(3, -1, -1)
        )
        states_BTE = self.projector(hidden_BTD)
        return [PromptStates(row[:length], row[length]) for row, length in zip(states_BTE, lengths, strict=True)]

    def hidden_states(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, **inputs: Any) -> Tensor:
        """Last states (B, T, D) of every token, after the final norm; `inputs` as the processor gives them for images."""
        output = self.llm.model(input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False, **inputs)
        return output.last_hidden_state

    def image_features(self, pixel_values: Tensor, image_grid_thw: Tensor) -> list[Tensor]:
        """What the vision tower makes of each image, (image tokens, D), without gradient, from what the processor gives."""
        with torch.no_grad():
            found: Any = self.llm.model.get_image_features(pixel_values, image_grid_thw)
        return list(found.pooler_output)

    def states_with_features(
        self, ids_BT: Tensor, attention_mask_BT: Tensor, is_image_BT: Tensor, features_KD: Tensor, positions_B3T: Tensor
    ) -> Tensor:
        """Last states (B, T, D) like `hidden_states`, of images that were seen before.

        Unlike there, a mark of an image that the model wrote itself is a word like others.

        Args:
            is_image_BT: which tokens stand for the K features, in their order.
            positions_B3T: of every token in time, height and width.
        """
        words_BTD = self.llm.get_input_embeddings()(ids_BT)
        inputs_BTD = words_BTD.masked_scatter(is_image_BT[..., None], features_KD.to(words_BTD.dtype))
        output = self.llm.model.language_model(
            inputs_embeds=inputs_BTD,
            attention_mask=attention_mask_BT,
            position_ids=positions_B3T.transpose(0, 1),
            use_cache=False,
        )
        return output.last_hidden_state

    def velocity(self, latents_BChw: Tensor, sigma_B: Tensor, text: TextStates) -> Tensor:
        """The decoder's velocity (B, C, h, w) of noisy latents at times in [0, 1]."""
        (velocity,) = self.decoder(
            hidden_states=latents_BChw.to(text.states_BTE.dtype),
            encoder_hidden_states=text.states_BTE,
            pooled_projections=self.pooled_embedding.to(text.states_BTE.dtype).expand(len(latents_BChw), -1),
            timestep=sigma_B * TIME_SCALE,
            joint_attention_kwargs=None if text.is_visible_BT is None else {"is_visible_BT": text.is_visible_BT},
            return_dict=False,
        )
        return velocity

    @torch.no_grad()
    def encode_images(self, pixels_B3HW: Tensor, noise_BChw: Tensor | None = None) -> Tensor:
        """Scaled latents (B, C, h, w) in float32 of pixels in [-1, 1]: means, or with normal noise a draw of each image's own."""
        with without_autocast(pixels_B3HW.device):
            found = self.vae.encode(pixels_B3HW.to(self.vae.dtype)).latent_dist
        latents = found.mean if noise_BChw is None else found.mean + found.std * noise_BChw
        return (latents.float() - self._latent_shift) * self.vae.config.scaling_factor

    def decode_latents(self, latents_BChw: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) about [-1, 1] of scaled latents."""
        latents = latents_BChw / self.vae.config.scaling_factor + self._latent_shift
        with without_autocast(latents.device):
            return self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0]

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @property
    def _latent_shift(self) -> float:
        return float(self.vae.config.shift_factor or 0.0)

    def get_input_embeddings(self) -> nn.Module:
        return self.llm.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.llm.get_output_embeddings()


AutoConfig.register(UaeConfig.model_type, UaeConfig)
AutoModel.register(UaeConfig, Uae)
