# SPDX-License-Identifier: Apache-2.0
"""A folder is loaded as what it holds, whole or not at all."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.tiny_encoders import MAKERS, kind_of
from unigen.errors import CheckpointError
from unigen.rewards.image_encoders.loading import load_encoder


def copied(encoders: Path, name: str, to: Path) -> Path:
    return Path(shutil.copytree(encoders / "checkpoints" / name, to / name))


def test_a_clip_may_be_of_transformers_or_of_open_clip(encoders: Path) -> None:
    names = {name: type(load_encoder("clip", name, encoders)).__name__ for name in ("clip", "open_clip")}
    assert names == {"clip": "ClipEncoder", "open_clip": "OpenClipEncoder"}


@pytest.mark.parametrize("kind", ["siglip", "dinov2", "dinov3"])
def test_a_folder_of_another_kind_is_refused(encoders: Path, kind: str) -> None:
    with pytest.raises(CheckpointError, match=f"clip holds a clip, where kind {kind} wants a "):
        load_encoder(kind, "clip", encoders)  # type: ignore[arg-type]


def test_without_a_folder_the_published_one_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"dinov3-vitl16-pretrain-lvd1689m'; tried .*checkpoints"):
        load_encoder("dinov3", data_root=tmp_path)
    with pytest.raises(CheckpointError, match=r"longclip-L.pt or longclip-B.pt of 'LongCLIP-L'"):
        load_encoder("longclip", data_root=tmp_path)


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2"])
def test_a_missing_parameter_is_no_random_one(encoders: Path, tmp_path: Path, name: str) -> None:
    file = copied(encoders, name, tmp_path) / "model.safetensors"
    weights = load_file(file)
    lost = next(key for key in weights if key.endswith("mlp.fc1.weight") and "text" not in key)
    save_file({key: tensor for key, tensor in weights.items() if key != lost}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"does not fill .* 1 parameters"):
        load_encoder(kind_of(name), tmp_path / name)


def test_open_clip_weights_that_do_not_fit_are_refused_in_one_line(encoders: Path, tmp_path: Path) -> None:
    file = copied(encoders, "open_clip", tmp_path) / "open_clip_model.safetensors"
    weights = load_file(file)
    del weights["visual.proj"]
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=r"cannot be loaded by open_clip.*visual\.proj") as error:
        load_encoder("clip", tmp_path / "open_clip")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("visual.proj", "visual.proj is not in it"),
        ("visual.positional_embedding", "is not whole"),
        ("visual.ln_post.bias", r"1 missing \(ln_post.bias\)"),
    ],
)
def test_a_long_clip_that_is_not_whole_is_refused(encoders: Path, tmp_path: Path, lost: str, said: str) -> None:
    file = copied(encoders, "longclip", tmp_path) / "longclip-L.pt"
    weights = torch.load(file, weights_only=True)
    del weights[lost]
    torch.save(weights, file)
    with pytest.raises(CheckpointError, match=said):
        load_encoder("longclip", tmp_path / "longclip")


def test_a_long_clip_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "longclip").mkdir()
    torch.save({"visual.proj": Path("anything but tensors")}, tmp_path / "longclip" / "longclip-L.pt")
    with pytest.raises(CheckpointError, match=r"cannot read .*longclip-L\.pt"):
        load_encoder("longclip", tmp_path / "longclip")


def test_a_folder_that_does_not_say_how_images_are_shown_is_refused(encoders: Path, tmp_path: Path) -> None:
    folder = copied(encoders, "dinov2", tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="does not say how its model sees images"):
        load_encoder("dinov2", folder)


PUBLISHED_VIEWS = {
    "clip": {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 224,
    },
    "dinov2": {
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "BitImageProcessor",
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 256},
    },
    "dinov3": {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "image_std": [0.229, 0.224, 0.225],
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 224, "width": 224},
    },
}
"""Of the folders that Unified-Bench names: older ones say their sizes, and their classes, in older words."""


@pytest.mark.parametrize("name", sorted(PUBLISHED_VIEWS))
def test_the_published_words_on_preprocessing_are_understood(encoders: Path, tmp_path: Path, name: str) -> None:
    folder = copied(encoders, name, tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps(PUBLISHED_VIEWS[name]))
    view = load_encoder(kind_of(name), folder).view
    assert view.size == (224, 224)
    assert list(view.mean) == PUBLISHED_VIEWS[name]["image_mean"]
    image = Image.effect_noise((300, 260), 80).convert("RGB")
    assert view.prepare(image).shape == (3, 224, 224)
    expected_by = {
        "clip": "CLIPImageProcessorPil",
        "dinov2": "BitImageProcessorPil",
        "dinov3": "DINOv3ViTImageProcessor",
    }
    assert view.name == expected_by[name]


def test_every_kind_is_tried_here() -> None:
    assert {kind_of(name) for name in MAKERS} == {"clip", "siglip", "longclip", "dinov2", "dinov3"}
