# SPDX-License-Identifier: Apache-2.0
"""Image encoders of every kind with random weights, in folders as their publishers write them, for images of 32 pixels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPImageProcessor,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTImageProcessor,
    DINOv3ViTModel,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.bit import BitImageProcessor

from tests.evaluation.geneval.judges import write_clip
from unigen.data.shapes.tokenizer import train_tokenizer

SIDE = 32
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VISION: dict[str, Any] = {**SIZES, "image_size": SIDE, "patch_size": 8}
OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 64, "head_width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    "quick_gelu": True,
}


def tiny_clip(folder: Path) -> Path:
    """A CLIPModel of transformers, which writes its words in single bytes."""
    write_clip(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def tiny_siglip(folder: Path) -> Path:
    """A SiglipModel as the stage `vision` writes it: without a word on preprocessing."""
    words = train_tokenizer(300)
    text = {**SIZES, "vocab_size": 300, "max_position_embeddings": 16, "projection_size": 16}
    text |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    _drawn(lambda: SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def tiny_dinov2(folder: Path) -> Path:
    """Like dinov2-large it cuts the middle out of a larger square."""
    _drawn(lambda: Dinov2Model(Dinov2Config(**{**VISION, "image_size": 48}))).save_pretrained(folder)
    crop = {"height": SIDE, "width": SIDE}
    BitImageProcessor(size={"shortest_edge": 36}, crop_size=crop, do_center_crop=True).save_pretrained(folder)
    return folder


def tiny_dinov3(folder: Path) -> Path:
    """Images are squeezed into its square."""
    _drawn(lambda: DINOv3ViTModel(DINOv3ViTConfig(**VISION, num_register_tokens=2))).save_pretrained(folder)
    DINOv3ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def tiny_open_clip(folder: Path) -> Path:
    """A folder of open_clip, whose tokenizer comes with it."""
    from open_clip import CLIP

    folder.mkdir(parents=True, exist_ok=True)
    save_file(_drawn(lambda: CLIP(**OPEN_CLIP)).state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": OPEN_CLIP, "preprocess_cfg": {"interpolation": "bicubic", "resize_mode": "shortest"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def tiny_long_clip(folder: Path) -> Path:
    """Long-CLIP's file: names of OpenAI's CLIP, 248 positions of text twice, in half precision."""
    from open_clip import CLIP

    folder.mkdir(parents=True, exist_ok=True)
    text = {**OPEN_CLIP["text_cfg"], "vocab_size": 64, "context_length": 248}
    weights = _drawn(lambda: CLIP(**{**OPEN_CLIP, "text_cfg": text})).half().state_dict()
    weights["positional_embedding_res"] = weights["positional_embedding"].clone()
    torch.save(weights, folder / "longclip-L.pt")
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "clip": tiny_clip,
    "open_clip": tiny_open_clip,
    "siglip": tiny_siglip,
    "longclip": tiny_long_clip,
    "dinov2": tiny_dinov2,
    "dinov3": tiny_dinov3,
}
"""By kind; `open_clip` is of kind clip."""


def kind_of(maker: str) -> Any:
    """The kind that the folders of one of MAKERS are of."""
    return "clip" if maker == "open_clip" else maker


def _drawn(build: Callable[[], Any]) -> Any:
    """Always the same weights, large enough for an image to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = build().eval()
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model
