# SPDX-License-Identifier: Apache-2.0
"""Which class reads which image tokenizer folder, and what any image tokenizer can do.

Another tokenizer joins by one entry in TOKENIZERS. Nothing outside this folder may rely on more than ImageTokenizer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from unigen.errors import CheckpointError
from unigen.models.image_tokenizers.magvitv2 import MagVitV2
from unigen.models.image_tokenizers.released_rqvae import rqvae_sizes, rqvae_weights
from unigen.models.image_tokenizers.rqvae_siglip import RqVaeSiglip
from unigen.models.weights import load_exactly, read_config, read_weights


@runtime_checkable
class ImageTokenizer(Protocol):
    """Pixels (B, 3, H, W) in [-1, 1] <-> codes, int64: (B, N), or (B, N, depth) where a position has several."""

    @property
    def downsample_factor(self) -> int:
        """Pixels per position along one side."""

    @property
    def codebook_size(self) -> int:
        """How many values a code can take."""

    def encode(self, pixels_B3HW: Tensor) -> Tensor:
        """Pixels -> codes, row by row from the top left."""

    def decode(self, codes_BN: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Codes -> pixels; `grid` is (height, width) in positions, a square where it is not given."""


AnyTokenizer = MagVitV2 | RqVaeSiglip


@dataclass(frozen=True)
class TokenizerKind:
    """How the folders of one class are read."""

    model_class: Any
    sizes: Callable[[dict[str, Any]], dict[str, Any]] = lambda content: content
    """The content of a config.json, of ours or of a released folder -> the fields of the class's configuration."""
    weights: Callable[[Path], dict[str, Tensor]] = read_weights
    """A folder -> the weights by the names that the class gives them."""


_MAGVITV2 = TokenizerKind(MagVitV2)
_RQVAE_SIGLIP = TokenizerKind(RqVaeSiglip, rqvae_sizes, rqvae_weights)
# config.json's model_type (our own folders, VILA-U's) or _class_name (released folders) -> how it is read.
TOKENIZERS: dict[str, TokenizerKind] = {
    "magvitv2": _MAGVITV2,
    "MAGVITv2": _MAGVITV2,
    "rqvae_siglip": _RQVAE_SIGLIP,
    "rqvaesiglip_model": _RQVAE_SIGLIP,
    "rqvaesigliptransformer_model": _RQVAE_SIGLIP,
}


def load_image_tokenizer(folder: Path, device: torch.device | str = "cpu", *, trainable: bool = False) -> AnyTokenizer:
    """Read a tokenizer in eval mode, frozen unless `trainable`, from our own save_pretrained folder or a released one.

    A released config.json names only its class: the sizes are then the class's defaults.

    Raises:
        CheckpointError: an unknown kind, an unreadable file, or weights that do not fit.
    """
    folder = Path(folder)
    kind, config = _kind(folder)
    # Parameters stay on the meta device until the file's own tensors take their place; buffers are computed.
    with init_empty_weights(include_buffers=False):
        model = _build(kind, config)
    weights = kind.weights(folder)
    defined = {name: buffer.clone() for name, buffer in model.named_buffers()}
    load_exactly(model, weights, folder)
    _check_buffers(model, defined, folder)
    model.eval().requires_grad_(trainable)
    return nn.Module.to(model, device)


def build_image_tokenizer(config_path: Path, device: torch.device | str = "meta") -> AnyTokenizer:
    """A tokenizer with random weights (none at all on the meta device) from a config.json or its folder."""
    kind, config = _kind(Path(config_path))
    with torch.device(device):
        return _build(kind, config)


def _kind(source: Path) -> tuple[TokenizerKind, dict[str, Any]]:
    config = read_config(source)
    name = str(config.get("model_type") or config.get("_class_name"))
    if name not in TOKENIZERS:
        known = ", ".join(TOKENIZERS)
        raise CheckpointError(f"{source} holds an image tokenizer of kind {name!r}; known are {known}")
    return TOKENIZERS[name], config


def _build(kind: TokenizerKind, config: dict[str, Any]) -> AnyTokenizer:
    sizes = {name: value for name, value in kind.sizes(config).items() if not name.startswith("_")}
    return kind.model_class(kind.model_class.config_class.from_dict(sizes))


def _check_buffers(model: AnyTokenizer, defined: dict[str, Tensor], source: Path) -> None:
    # The buffers follow from the configuration. Others mean another order of bits, so that codes name other images.
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, defined[name]):
            raise CheckpointError(f"{name} in {source} is not what {type(model).__name__} defines: another code order?")
