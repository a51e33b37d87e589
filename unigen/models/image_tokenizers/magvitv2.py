# SPDX-License-Identifier: Apache-2.0
"""MAGViT-v2 image tokenizer: a convolutional auto-encoder around lookup-free quantisation.

The default configuration has the names and shapes of the public `showlab/magvitv2` weights; smaller ones (fewer
channels, levels or bits) are the same class with other numbers.

Shapes: B images, 3 x H x W pixels in [-1, 1], C latent channels, h x w latent positions, N = h * w codes.
"""

from dataclasses import field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from unigen.errors import ConfigError
from unigen.models.image_tokenizers.blocks import Decoder, Encoder
from unigen.models.image_tokenizers.grids import full_grid, require_whole_positions
from unigen.models.image_tokenizers.lookup_free import LookupFreeQuantizer
from unigen.models.precision import without_autocast


class MagVitV2Config(PretrainedConfig):
    """Sizes of a MagVitV2; lists run from the highest resolution to the lowest and have one entry per level.

    `norm_groups` must divide every channel count; `resolution` is the side in pixels the weights were trained at.
    """

    model_type = "magvitv2"

    base_channels: int = 128
    encoder_channel_multipliers: list[int] = field(default_factory=lambda: [1, 2, 2, 4, 4])
    decoder_channel_multipliers: list[int] = field(default_factory=lambda: [1, 1, 2, 2, 4])
    encoder_res_blocks: list[int] = field(default_factory=lambda: [4, 3, 4, 3, 4])
    decoder_res_blocks: list[int] = field(default_factory=lambda: [4, 4, 3, 4, 3])
    latent_channels: int = 13
    image_channels: int = 3
    norm_groups: int = 32
    resolution: int = 256

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        lists = (
            "encoder_channel_multipliers",
            "decoder_channel_multipliers",
            "encoder_res_blocks",
            "decoder_res_blocks",
        )
        lengths = {name: len(getattr(self, name)) for name in lists}
        if len(set(lengths.values())) != 1:
            raise ConfigError(f"magvitv2: every list needs one entry per level, but their lengths are {lengths}")
        if min(self.encoder_res_blocks + self.decoder_res_blocks) < 1:
            raise ConfigError("magvitv2: every level needs at least one residual block")
        for channels in {*self.encoder_channels, *self.decoder_channels}:
            if channels % self.norm_groups:
                raise ConfigError(f"magvitv2.norm_groups={self.norm_groups} does not divide {channels} channels")

    @property
    def encoder_channels(self) -> list[int]:
        """Channels of the encoder's levels."""
        return [self.base_channels * multiplier for multiplier in self.encoder_channel_multipliers]

    @property
    def decoder_channels(self) -> list[int]:
        """Channels of the decoder's levels."""
        return [self.base_channels * multiplier for multiplier in self.decoder_channel_multipliers]


class TokenizerOutput(NamedTuple):
    """What training needs from one pass over a batch of images."""

    reconstruction: Tensor  # (B, 3, H, W), about [-1, 1]
    latents: Tensor  # (B, C, h, w), before quantisation
    quantised: Tensor  # (B, C, h, w), -1 or +1, gradients straight through to the latents
    codes: Tensor  # (B, N) int64


class MagVitV2(PreTrainedModel):
    """Pixels <-> codes. Always runs in the dtype of its weights, float32, whatever autocast is around it."""

    config_class = MagVitV2Config
    base_model_prefix = ""
    main_input_name = "pixels_B3HW"

    def __init__(self, config: MagVitV2Config) -> None:
        super().__init__(config)
        shared: dict[str, Any] = {"latent_channels": config.latent_channels, "num_groups": config.norm_groups}
        self.encoder = Encoder(config.image_channels, config.encoder_channels, config.encoder_res_blocks, **shared)
        self.decoder = Decoder(config.image_channels, config.decoder_channels, config.decoder_res_blocks, **shared)
        self.quantize = LookupFreeQuantizer(config.latent_channels)
        self.post_init()

    @property
    def downsample_factor(self) -> int:
        """Pixels per code along one side."""
        return 2 ** (len(self.config.encoder_channel_multipliers) - 1)

    @property
    def codebook_size(self) -> int:
        """How many codes there are."""
        return 2**self.config.latent_channels

    def latents(self, pixels_B3HW: Tensor) -> Tensor:
        """Pixels in [-1, 1] -> latents (B, C, H / factor, W / factor), before quantisation.

        Raises:
            DataError: height or width is not a multiple of `downsample_factor`.
        """
        require_whole_positions(pixels_B3HW, self.downsample_factor)
        with without_autocast(pixels_B3HW.device):
            return self.encoder(_channels_last(pixels_B3HW, self.dtype))

    @torch.no_grad()
    def encode(self, pixels_B3HW: Tensor) -> Tensor:
        """Pixels in [-1, 1] -> codes (B, N) int64, row by row from the top left."""
        return self.quantize.codes(self.latents(pixels_B3HW))

    @torch.no_grad()
    def decode(self, codes_BN: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Codes -> pixels (B, 3, H, W), about [-1, 1]; `grid` is (h, w), a square where it is not given.

        Raises:
            DataError: the number of codes does not fill the grid.
        """
        return self._pixels(self.quantize.lookup(codes_BN, full_grid(codes_BN.shape[1], grid)))

    def forward_train(self, pixels_B3HW: Tensor) -> TokenizerOutput:
        """Encode, quantise straight through and decode, keeping gradients, for the losses of `objectives`."""
        latents_BChw = self.latents(pixels_B3HW)
        quantised_BChw = self.quantize.quantise(latents_BChw)
        reconstruction_B3HW = self._pixels(quantised_BChw)
        return TokenizerOutput(reconstruction_B3HW, latents_BChw, quantised_BChw, self.quantize.codes(latents_BChw))

    def forward(self, pixels_B3HW: Tensor) -> TokenizerOutput:
        """The training pass, under the name that DDP and FSDP wrap."""
        return self.forward_train(pixels_B3HW)

    def _pixels(self, quantised_BChw: Tensor) -> Tensor:
        with without_autocast(quantised_BChw.device):
            return self.decoder(_channels_last(quantised_BChw, self.dtype))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # PyTorch's own initialisation; transformers' normal(0, 0.02) would start these convolutions far too small.
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            module.reset_parameters()


def _channels_last(tensor_BCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """The layout in which convolutions are fastest, on CPU and on tensor cores; their outputs keep it."""
    return tensor_BCHW.to(dtype, memory_format=torch.channels_last)
