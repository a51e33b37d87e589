# SPDX-License-Identifier: Apache-2.0
"""Image encoders of open_clip: its own folders, and Long-CLIP, whose vision half is OpenAI's.

Legend: N images or texts, D width of the features, h w the network's size in pixels.
"""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unigen.config.folders import LONG_CLIP_WEIGHTS
from unigen.errors import CheckpointError, ConfigError
from unigen.models.weights import load_exactly
from unigen.rewards.image_encoders.encoder import ImageEncoder, View

HEAD_WIDTH = 64
"""Of every vision transformer by OpenAI."""


class OpenClipEncoder(ImageEncoder):
    """A folder with an open_clip_config.json and its weights."""

    kind = "clip"
    network: Any

    def __init__(self, folder: Path, device: torch.device | str) -> None:
        open_clip = _open_clip()
        source = f"local-dir:{folder}"
        try:
            model, _ = open_clip.create_model_from_pretrained(source, precision="fp32", device="cpu")
            self._tokenizer = open_clip.get_tokenizer(source)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{folder} cannot be loaded by open_clip: {' '.join(str(error).split())[:300]}"
            ) from error
        super().__init__(model, _view(**model.visual.preprocess_cfg), folder, device)

    def _embed_pixels(self, pixels_N3hw: Tensor) -> Tensor:
        return self.network.encode_image(pixels_N3hw)

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        return self.network.encode_text(self._tokenizer(list(texts)).to(self._device))


class LongClipEncoder(ImageEncoder):
    """Long-CLIP (arXiv 2403.15378): its vision half alone, from the published file, and CLIP's own preprocessing."""

    kind = "longclip"

    def __init__(self, folder: Path, device: torch.device | str) -> None:
        weights = _vision_weights(folder)
        network = _vision_transformer(weights, folder)
        load_exactly(network, weights, folder)
        super().__init__(network, _view(size=network.image_size), folder, device)

    def _embed_pixels(self, pixels_N3hw: Tensor) -> Tensor:
        return self.network(pixels_N3hw)


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: run `bash scripts/setup.sh uae`") from error
    return open_clip


def _view(**settings: Any) -> View:
    """An image as open_clip shows it; what is not said is as OpenAI's CLIP."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    chosen = PreprocessCfg(**settings)
    return View(
        chosen.input_size[1:],
        chosen.mean,
        chosen.std,
        image_transform_v2(chosen, is_train=False),
        f"open_clip {chosen.resize_mode} {chosen.interpolation}",
    )


def _vision_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors below `visual.` of the published file, which is read as tensors alone."""
    file = next((folder / name for name in LONG_CLIP_WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"no Long-CLIP in {folder}: expected {' or '.join(LONG_CLIP_WEIGHTS)}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"cannot read {file}: {' '.join(str(error).split())[:200]}; fetch it again") from error
    if not isinstance(content, dict) or "visual.proj" not in content:
        raise CheckpointError(f"{file} holds no vision transformer of CLIP: visual.proj is not in it")
    prefix = "visual."
    return {name.removeprefix(prefix): tensor for name, tensor in content.items() if name.startswith(prefix)}


def _vision_transformer(weights: Mapping[str, Tensor], folder: Path) -> nn.Module:
    """The network that weights of OpenAI's names and shapes are of; its own weights are still random."""
    _open_clip()
    from open_clip.transformer import QuickGELU, VisionTransformer

    try:
        width, _, _, patch_size = weights["conv1.weight"].shape
        side = round((len(weights["positional_embedding"]) - 1) ** 0.5) * patch_size
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the vision half of the Long-CLIP in {folder} is not whole: {error}") from error
    return VisionTransformer(
        image_size=side,
        patch_size=patch_size,
        width=width,
        layers=sum(name.endswith(".attn.in_proj_weight") for name in weights),
        heads=width // HEAD_WIDTH,
        mlp_ratio=4.0,
        output_dim=weights["proj"].shape[1],
        act_layer=QuickGELU,
    )
