# SPDX-License-Identifier: Apache-2.0
"""An image encoder by its kind and the folder that a configuration names."""

from pathlib import Path

import torch

from unigen.config.folders import LONG_CLIP_WEIGHTS, OPEN_CLIP_FILE, find_model
from unigen.config.policy import PUBLISHED_ENCODERS, EncoderKind
from unigen.rewards.image_encoders.encoder import ImageEncoder

FILES_OF_KIND: dict[str, tuple[str, ...]] = {"clip": (OPEN_CLIP_FILE, "config.json"), "longclip": LONG_CLIP_WEIGHTS}
"""What tells a folder of a kind that is not one of transformers alone."""


def load_encoder(
    kind: EncoderKind,
    model: str | Path | None = None,
    data_root: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> ImageEncoder:
    """The encoder in the folder `model`, looked up under `<data_root>/checkpoints`; the published one of its kind for None.

    Raises:
        CheckpointError: no such folder, another kind of model, or weights that are not whole.
        ConfigError: what reads it is not installed.
    """
    folder = find_model(model or PUBLISHED_ENCODERS[kind], data_root, files=FILES_OF_KIND.get(kind, ("config.json",)))
    # Each brings libraries that the others do without, and that take seconds to import.
    if kind == "longclip" or (kind == "clip" and (folder / OPEN_CLIP_FILE).is_file()):
        from unigen.rewards.image_encoders.open_clip import LongClipEncoder, OpenClipEncoder

        return LongClipEncoder(folder, device) if kind == "longclip" else OpenClipEncoder(folder, device)
    from unigen.rewards.image_encoders.hugging_face import ClipEncoder, DinoEncoder, SiglipEncoder

    if kind == "clip":
        return ClipEncoder(folder, device)
    return SiglipEncoder(folder, device) if kind == "siglip" else DinoEncoder(kind, folder, device)
