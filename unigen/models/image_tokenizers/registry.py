# SPDX-License-Identifier: Apache-2.0
"""Which class reads which image tokenizer folder, and what any image tokenizer can do.

Another tokenizer joins by one entry in TOKENIZERS. Nothing outside this folder may rely on more than ImageTokenizer.
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from unigen.errors import CheckpointError
from unigen.models.image_tokenizers.magvitv2 import MagVitV2
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


# config.json's model_type (our own folders) or _class_name (released folders) -> the class.
TOKENIZERS: dict[str, type[MagVitV2]] = {
    "magvitv2": MagVitV2,
    "MAGVITv2": MagVitV2,
}


def load_image_tokenizer(folder: Path, device: torch.device | str = "cpu", *, trainable: bool = False) -> MagVitV2:
    """Read a tokenizer in eval mode, frozen unless `trainable`, from our own save_pretrained folder or a released one.

    A released config.json names only its class: the sizes are then the class's defaults.

    Raises:
        CheckpointError: an unknown kind, an unreadable file, or weights that do not fit.
    """
    folder = Path(folder)
    config = read_config(folder)
    # Parameters stay on the meta device until the file's own tensors take their place; buffers are computed.
    with init_empty_weights(include_buffers=False):
        model = _build(config, folder)
    weights = read_weights(folder)
    defined = {name: buffer.clone() for name, buffer in model.named_buffers()}
    load_exactly(model, weights, folder)
    _check_buffers(model, defined, folder)
    model.eval().requires_grad_(trainable)
    return nn.Module.to(model, device)


def build_image_tokenizer(config_path: Path, device: torch.device | str = "meta") -> MagVitV2:
    """A tokenizer with random weights (none at all on the meta device) from a config.json or its folder."""
    config = read_config(Path(config_path))
    with torch.device(device):
        return _build(config, Path(config_path))


def _build(config: dict[str, Any], source: Path) -> MagVitV2:
    kind = str(config.get("model_type") or config.get("_class_name"))
    if kind not in TOKENIZERS:
        known = ", ".join(TOKENIZERS)
        raise CheckpointError(f"{source} holds an image tokenizer of kind {kind!r}; known are {known}")
    model_class = TOKENIZERS[kind]
    sizes = {name: value for name, value in config.items() if not name.startswith("_")}
    return model_class(model_class.config_class.from_dict(sizes))


def _check_buffers(model: MagVitV2, defined: dict[str, Tensor], source: Path) -> None:
    # The buffers follow from the configuration. Others mean another order of bits, so that codes name other images.
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, defined[name]):
            raise CheckpointError(f"{name} in {source} is not what {type(model).__name__} defines: another code order?")
