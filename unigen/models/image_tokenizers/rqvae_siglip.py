# SPDX-License-Identifier: Apache-2.0
"""VILA-U's image tokenizer: SigLIP features, a residual quantiser, and a convolutional decoder.

Source: Wu et al., arXiv 2409.04429, section 3.1. The default configuration is the released one for 256 pixels; it takes other
sizes too, such as 384 pixels, by interpolating SigLIP's table of positions. Weight names as in the release, below its
`rqvaesiglip.`, without what it never uses (text tower, last vision layer, pooling head) and with its one codebook once.

Shapes: B images, 3 x H x W pixels in [-1, 1], h x w positions, N = h * w, C channels of a feature, P depths.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, SiglipVisionConfig

from unigen.errors import ConfigError
from unigen.models.image_tokenizers.blocks import Decoder
from unigen.models.image_tokenizers.grids import full_grid, require_whole_positions
from unigen.models.image_tokenizers.residual import Codebook, ResidualQuantizer
from unigen.models.precision import without_autocast
from unigen.models.vision import penultimate_encoder


class RqVaeSiglipConfig(PretrainedConfig):
    """Sizes of an RqVaeSiglip; the lists of channels run from the highest resolution to the lowest."""

    model_type = "rqvae_siglip"
    sub_configs = {"siglip_config": SiglipVisionConfig}  # noqa: RUF012 (transformers declares it so)

    siglip_config: Any = None
    """Of the whole vision encoder; its last layer is left out."""
    codebook_size: int = 16384
    depth: int = 4
    latent_channels: int = 256
    base_channels: int = 128
    channel_multipliers: list[int] = field(default_factory=lambda: [1, 1, 2, 2, 4])
    res_blocks: int = 2
    """The decoder has one more at every level."""
    attention_resolutions: list[int] = field(default_factory=lambda: [16])
    """Sides, for an image of `resolution`, of the levels whose blocks have attention after them."""
    image_channels: int = 3
    norm_groups: int = 32
    resolution: int = 256

    def __post_init__(self, **kwargs: Any) -> None:
        if self.siglip_config is None:
            self.siglip_config = SiglipVisionConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=24,
                num_attention_heads=16,
                image_size=256,
                patch_size=16,
            )
        elif isinstance(self.siglip_config, dict):
            self.siglip_config = SiglipVisionConfig.from_dict(self.siglip_config)
        super().__post_init__(**kwargs)
        patch, factor = self.siglip_config.patch_size, 2 ** (len(self.channel_multipliers) - 1)
        if patch != factor:
            raise ConfigError(
                f"rqvae_siglip: a feature stands for {patch} pixels a side, but the decoder makes {factor} of it; "
                f"give {int(math.log2(patch)) + 1} channel_multipliers"
            )
        for channels in self.level_channels:
            if channels % self.norm_groups:
                raise ConfigError(f"rqvae_siglip.norm_groups={self.norm_groups} does not divide {channels} channels")

    @property
    def level_channels(self) -> list[int]:
        """Channels of the decoder's levels."""
        return [self.base_channels * multiplier for multiplier in self.channel_multipliers]

    @property
    def feature_size(self) -> int:
        """Channels of a feature and of a row of the codebook."""
        return self.siglip_config.hidden_size

    @property
    def attention_levels(self) -> list[int]:
        levels = range(len(self.channel_multipliers))
        return [level for level in levels if self.resolution // 2**level in self.attention_resolutions]


class FeatureTokenizerOutput(NamedTuple):
    """What training needs from one pass over a batch of images."""

    reconstruction: Tensor  # (B, 3, H, W), about [-1, 1]
    features: Tensor  # (B, N, C), before quantisation
    quantised: Tensor  # (B, N, C), with gradients straight through to the features
    partial_sums: Tensor  # (B, N, P, C): the codebook rows up to each depth, with gradients to the codebook
    codes: Tensor  # (B, N, P) int64


class RqVaeSiglip(PreTrainedModel):
    """Pixels <-> codes (B, N, P). Always runs in the dtype of its weights, float32, whatever autocast is around it."""

    config_class = RqVaeSiglipConfig
    base_model_prefix = ""
    main_input_name = "pixels_B3HW"

    def __init__(self, config: RqVaeSiglipConfig) -> None:
        super().__init__(config)
        self.siglip_model = nn.ModuleDict({"vision_model": penultimate_encoder(config.siglip_config)})
        self.quantizer = ResidualQuantizer(config.codebook_size, config.feature_size, config.depth)
        self.post_quant_conv = nn.Conv2d(config.feature_size, config.latent_channels, 1)
        self.decoder = Decoder(
            config.image_channels,
            config.level_channels,
            [config.res_blocks + 1] * len(config.level_channels),
            config.latent_channels,
            config.norm_groups,
            attention_levels=config.attention_levels,
            has_post_quant_conv=False,
        )
        self.post_init()

    @property
    def downsample_factor(self) -> int:
        """Pixels per position along one side."""
        return self.config.siglip_config.patch_size

    @property
    def codebook_size(self) -> int:
        """How many values a code can take."""
        return self.config.codebook_size

    @property
    def depth(self) -> int:
        """Codes of a position."""
        return self.config.depth

    @property
    def feature_size(self) -> int:
        """Channels of what `lookup` gives."""
        return self.config.feature_size

    def features(self, pixels_B3HW: Tensor) -> Tensor:
        """Pixels in [-1, 1] -> features (B, N, C) of SigLIP's penultimate layer, before quantisation.

        Raises:
            DataError: height or width is not a multiple of `downsample_factor`.
        """
        require_whole_positions(pixels_B3HW, self.downsample_factor)
        with without_autocast(pixels_B3HW.device):
            encoder = self.siglip_model["vision_model"]
            return encoder(pixels_B3HW.to(self.dtype), interpolate_pos_encoding=True).last_hidden_state

    @torch.no_grad()
    def encode(self, pixels_B3HW: Tensor) -> Tensor:
        """Pixels in [-1, 1] -> codes (B, N, P) int64, positions row by row from the top left."""
        features_BNC = self.features(pixels_B3HW)
        with without_autocast(pixels_B3HW.device):
            return self.quantizer.codes(features_BNC)

    def lookup(self, codes_BNP: Tensor) -> Tensor:
        """Codes -> quantised features (B, N, C), which language models read."""
        return self.quantizer.lookup(codes_BNP)

    def depth_embeddings(self, codes_BNP: Tensor) -> Tensor:
        """Codes -> the codebook rows (B, N, P, C) whose sum over the depths is `lookup`."""
        return self.quantizer.depth_embeddings(codes_BNP)

    @torch.no_grad()
    def decode(self, codes_BNP: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Codes -> pixels (B, 3, H, W), about [-1, 1]; `grid` is (h, w), a square where it is not given.

        Raises:
            DataError: the number of positions does not fill the grid.
        """
        return self._pixels(self.lookup(codes_BNP), full_grid(codes_BNP.shape[1], grid))

    def forward(self, pixels_B3HW: Tensor) -> FeatureTokenizerOutput:
        """Encode, quantise straight through and decode, keeping gradients, for the losses of `objectives`."""
        features_BNC = self.features(pixels_B3HW)
        quantised_BNC, codes_BNP = self.quantizer(features_BNC)
        factor = self.downsample_factor
        grid = (pixels_B3HW.shape[-2] // factor, pixels_B3HW.shape[-1] // factor)
        reconstruction_B3HW = self._pixels(quantised_BNC, grid)
        partial_BNPC = self.depth_embeddings(codes_BNP).cumsum(-2)
        return FeatureTokenizerOutput(reconstruction_B3HW, features_BNC, quantised_BNC, partial_BNPC, codes_BNP)

    def _pixels(self, quantised_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
        with without_autocast(quantised_BNC.device):
            vectors_BChw = quantised_BNC.to(self.dtype).transpose(1, 2).unflatten(2, grid)
            return self.decoder(self.post_quant_conv(vectors_BChw.contiguous(memory_format=torch.channels_last)))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # SigLIP has drawn its own weights. For the rest PyTorch's initialisation: normal(0, 0.02) would start far too small.
        if isinstance(module, nn.Conv2d | nn.GroupNorm | Codebook):
            module.reset_parameters()
