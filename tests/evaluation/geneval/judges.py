# SPDX-License-Identifier: Apache-2.0
"""Small judges: a Mask2Former and a CLIP of random weights in folders of transformers, and judges that say what they are told."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    SwinConfig,
)

from unigen.evaluation.geneval.classes import CLASS_NAMES
from unigen.evaluation.geneval.postprocess import Instance
from unigen.reference.mmdet_mask2former import MmdetSizes

SEEN_EVERYWHERE = "bench"
"""What the small detector finds in every image."""
SMALL = MmdetSizes(
    swin_width=6,
    swin_depths=(2, 1, 2, 1),
    swin_heads=(1, 2, 3, 3),
    width=32,
    num_heads=4,
    encoder_layers=2,
    encoder_inner_width=16,
    decoder_layers=4,
    decoder_inner_width=16,
    num_queries=5,
)


def small_mask2former(sizes: MmdetSizes = SMALL) -> Any:
    """An untrained Mask2Former of transformers with the sizes of OpenMMLab's description."""
    backbone: dict[str, Any] = {
        "embed_dim": sizes.swin_width,
        "depths": list(sizes.swin_depths),
        "num_heads": list(sizes.swin_heads),
        "window_size": sizes.window,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    settings: dict[str, Any] = {
        "feature_size": sizes.width,
        "mask_feature_size": sizes.width,
        "hidden_dim": sizes.width,
        "num_attention_heads": sizes.num_heads,
        "encoder_layers": sizes.encoder_layers,
        "encoder_feedforward_dim": sizes.encoder_inner_width,
        "decoder_layers": sizes.decoder_layers + 1,
        "dim_feedforward": sizes.decoder_inner_width,
        "num_queries": sizes.num_queries,
        "num_labels": sizes.num_classes,
    }
    config = Mask2FormerConfig(backbone_config=SwinConfig(**backbone), **settings)
    return Mask2FormerForUniversalSegmentation(config).eval()


def write_detector(folder: Path) -> Path:
    """A small detector that finds one object of one class in every image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = small_mask2former(
            MmdetSizes(**{**vars(SMALL), "num_queries": 1, "encoder_layers": 1, "decoder_layers": 1})
        )
        model.class_predictor.bias.data[CLASS_NAMES.index(SEEN_EVERYWHERE)] = 12.0
        model.class_predictor.weight.data *= 0
    model.save_pretrained(folder)
    return folder


def small_clip(activation: str = "quick_gelu") -> CLIPModel:
    """An untrained CLIP for images of 32 pixels a side."""
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {**sizes, "vocab_size": 514, "max_position_embeddings": 77, "hidden_act": activation}
    text |= {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    vision = {**sizes, "image_size": 32, "patch_size": 8, "hidden_act": activation}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def write_clip(folder: Path, activation: str = "quick_gelu") -> Path:
    """A small CLIP with a tokenizer whose words are single bytes."""
    small_clip(activation).save_pretrained(folder)
    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    letters += [chr(256 + index) for index in range(256 - len(letters))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    return folder


def instance(name: str, box: tuple[int, int, int, int], score: float, side: int = 64) -> Instance:
    """An object that fills its box."""
    mask_HW = torch.zeros(side, side, dtype=torch.bool)
    mask_HW[box[1] : box[3], box[0] : box[2]] = True
    left, upper, right, lower = map(float, box)
    return Instance(CLASS_NAMES.index(name), (left, upper, right, lower), score, mask_HW)


class ToldDetector:
    """Finds what it is told."""

    device = torch.device("cpu")

    def __init__(self, *found: Instance) -> None:
        self.found = found

    def find(self, image: Image.Image, min_score: float = 0.0) -> list[Instance]:
        return [one for one in self.found if one.score > min_score]


class ToldColors:
    """Names colours in turn and remembers what it was asked about."""

    def __init__(self, *colors: str) -> None:
        self.colors = list(colors)
        self.asked: list[tuple[str, float]] = []

    def classify(self, image: Image.Image, objects: Sequence[Instance], name: str) -> list[str]:
        self.asked += [(name, one.score) for one in objects]
        return [self.colors.pop(0) for _ in objects]
