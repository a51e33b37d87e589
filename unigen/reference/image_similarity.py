# SPDX-License-Identifier: Apache-2.0
"""Likeness of two images written plainly: one pair at a time, one image at a time, cut and scaled by hand, cosine in Python.

Legend: T tokens of an image, D width, E width of a head, h w the network's size in pixels.
"""

import json
from collections.abc import Callable, Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    CLIPModel,
    Dinov2Model,
    DINOv3ViTModel,
    SiglipVisionModel,
)

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's, of the three colours."""
HALF = (0.5, 0.5, 0.5)
HEAD_WIDTH = 64

Weights = Mapping[str, Tensor]


@torch.no_grad()
def similarity_slowly(kind: str, folder: Path, image: Image.Image, original: Image.Image) -> float:
    """The number that `rewards.image_similarity.similarities` must give for this pair."""
    return _cosine(*(_feature(kind, folder, one.convert("RGB")).tolist() for one in (image, original)))


def _feature(kind: str, folder: Path, image: Image.Image) -> Tensor:
    if kind == "dinov2":
        pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=image, return_tensors="pt")
        return Dinov2Model.from_pretrained(folder).eval()(**pixels).last_hidden_state[0, 0]
    if kind == "dinov3":
        pixels = AutoImageProcessor.from_pretrained(folder)(images=image, return_tensors="pt")
        return DINOv3ViTModel.from_pretrained(folder).eval()(**pixels).last_hidden_state[0, 0]
    if kind == "siglip":
        siglip = SiglipVisionModel.from_pretrained(folder).eval()
        side = siglip.config.image_size
        pixels_3hw = _scaled(image.resize((side, side), Image.Resampling.BICUBIC), HALF, HALF)
        return siglip(pixel_values=pixels_3hw[None]).pooler_output[0]
    if kind == "longclip":
        weights = torch.load(folder / "longclip-L.pt", weights_only=True)
        return _openai_transformer(weights, image, lambda x: x * torch.sigmoid(1.702 * x))
    if (folder / "open_clip_config.json").is_file():
        is_quick = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"].get("quick_gelu", False)
        weights = load_file(folder / "open_clip_model.safetensors")
        return _openai_transformer(weights, image, (lambda x: x * torch.sigmoid(1.702 * x)) if is_quick else F.gelu)
    clip = CLIPModel.from_pretrained(folder).eval()
    pixels_3hw = _scaled(_middle_square(image, clip.config.vision_config.image_size), MEAN, DEVIATION)
    return clip.visual_projection(clip.vision_model(pixel_values=pixels_3hw[None]).pooler_output)[0]


def _middle_square(image: Image.Image, side: int) -> Image.Image:
    """The shorter side resized to `side`, then the middle of the longer one."""
    width, height = image.size
    if width < height:
        width, height = side, int(side * height / width)
    else:
        width, height = int(side * width / height), side
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))


def _scaled(image: Image.Image, mean: Any, deviation: Any) -> Tensor:
    values_hw3 = (np.asarray(image, dtype=np.float64) / 255 - mean) / deviation
    return torch.from_numpy(values_hw3).permute(2, 0, 1).float()


def _openai_transformer(weights: Weights, image: Image.Image, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """CLIP's vision transformer (arXiv 2103.00020) from its weights by name: patch by patch, head by head."""
    visual = {name.removeprefix("visual."): tensor.float() for name, tensor in weights.items() if "visual." in name}
    kernel = visual["conv1.weight"]
    patch = kernel.shape[-1]
    rows = round((len(visual["positional_embedding"]) - 1) ** 0.5)
    pixels_3hw = _scaled(_middle_square(image, rows * patch), MEAN, DEVIATION)
    tokens = [visual["class_embedding"]]
    for row in range(rows):
        for column in range(rows):
            piece = pixels_3hw[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            tokens.append((kernel * piece).sum((1, 2, 3)))
    x_TD = _normed(torch.stack(tokens) + visual["positional_embedding"], visual, "ln_pre")
    layer = 0
    while f"transformer.resblocks.{layer}.ln_1.weight" in visual:
        name = f"transformer.resblocks.{layer}"
        x_TD = x_TD + _attention(_normed(x_TD, visual, f"{name}.ln_1"), visual, f"{name}.attn")
        hidden = activation(_linear(_normed(x_TD, visual, f"{name}.ln_2"), visual, f"{name}.mlp.c_fc"))
        x_TD = x_TD + _linear(hidden, visual, f"{name}.mlp.c_proj")
        layer += 1
    return _normed(x_TD[0], visual, "ln_post") @ visual["proj"]


def _attention(x_TD: Tensor, weights: Weights, name: str) -> Tensor:
    q_TD, k_TD, v_TD = (x_TD @ weights[f"{name}.in_proj_weight"].T + weights[f"{name}.in_proj_bias"]).chunk(3, dim=-1)
    heads = []
    for start in range(0, x_TD.shape[-1], HEAD_WIDTH):
        q_TE, k_TE, v_TE = (one[:, start : start + HEAD_WIDTH] for one in (q_TD, k_TD, v_TD))
        heads.append(torch.softmax(q_TE @ k_TE.T / sqrt(HEAD_WIDTH), dim=-1) @ v_TE)
    return _linear(torch.cat(heads, dim=-1), weights, f"{name}.out_proj")


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _normed(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def _cosine(first: list[float], second: list[float]) -> float:
    lengths = sqrt(sum(value * value for value in first)) * sqrt(sum(value * value for value in second))
    return sum(a * b for a, b in zip(first, second, strict=True)) / lengths
