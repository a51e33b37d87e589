# SPDX-License-Identifier: Apache-2.0
"""The detector's checkpoint: where it is looked for, what it is called, and what is refused."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.evaluation.geneval import judges
from unigen.errors import EvaluationError
from unigen.evaluation.geneval import detector
from unigen.evaluation.geneval.classes import CLASS_NAMES
from unigen.evaluation.geneval.detector import Detector, DetectorFile, find_detector
from unigen.reference.mmdet_mask2former import MmdetMask2Former

OFFICIAL = "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco"
CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenMMLab's architecture in a small size."""
    monkeypatch.setattr(detector, "swin_small", lambda: judges.small_mask2former().config)


def write_openmmlab(path: Path, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    model = MmdetMask2Former(judges.SMALL)
    torch.save({"meta": {"CLASSES": ("person",), "epoch": 3}, "state_dict": model.state_dict(), **more}, path)
    return path


@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/mask2former"])
@pytest.mark.parametrize("name", [f"{OFFICIAL}.pth", f"{OFFICIAL}_20220504_001756-743b7d99.pth"])
def test_the_checkpoint_is_found_in_both_places_and_under_both_names(place: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / place / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert find_detector(None, tmp_path).path == path


def test_a_missing_checkpoint_names_both_places_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError) as caught:
        find_detector(None, tmp_path)
    for wanted in (f"{tmp_path}/checkpoints/{OFFICIAL}", f"{tmp_path}/checkpoints/mask2former/", "setup_eval.sh"):
        assert wanted in str(caught.value)


def test_the_variant_is_named_by_the_file_itself() -> None:
    known = DetectorFile(Path(__file__), "743b7d99" + "0" * 56)
    assert (known.variant, known.is_known) == ("mask2former-openmmlab-20220504", True)
    other = DetectorFile(Path(__file__), "12345678" + "0" * 56)
    assert (other.variant, other.is_known) == ("mask2former-openmmlab-12345678", False)
    meta = DetectorFile(Path("x/mask2former-swin-small-coco-instance"), "743b7d99" + "0" * 56)
    assert (meta.variant, meta.is_known) == ("mask2former-meta-743b7d99", False)


def test_a_checkpoint_of_openmmlab_loads_as_weights_alone(small: None, tmp_path: Path) -> None:
    path = write_openmmlab(tmp_path / "any.pth")
    plain = MmdetMask2Former(judges.SMALL).eval()
    plain.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    pixels = torch.randn(3, 256, 256, generator=torch.Generator().manual_seed(0))
    classes, masks = Detector.load(find_detector(str(path), tmp_path), CPU).logits(pixels)
    with torch.no_grad():
        wanted_classes, wanted_masks = plain(pixels[None])
    torch.testing.assert_close(classes, wanted_classes[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(masks, wanted_masks[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_numbers_of_numpy_beside_the_weights_are_read(module: bytes, small: None, tmp_path: Path) -> None:
    meta = {"mAP": np.float64(0.461), "epoch": np.int64(50), "is_best": np.bool_(True)}
    path = write_openmmlab(tmp_path / "any.pth", meta=meta)
    _rename(b"numpy._core.multiarray", module, path)  # as NumPy 1 calls it
    with pytest.raises(pickle.UnpicklingError, match="numpy"):
        torch.load(path, weights_only=True)
    assert Detector.load(find_detector(str(path), tmp_path), CPU).model.config.num_labels == len(CLASS_NAMES)
    with pytest.raises(pickle.UnpicklingError, match="numpy"):  # only here, and only while it is read
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("value", [np.array([len], dtype=object), np.ma.array([1])])
def test_other_objects_of_numpy_are_refused(value: Any, small: None, tmp_path: Path) -> None:
    unsafe = write_openmmlab(tmp_path / "any.pth", meta=value)
    with pytest.raises(EvaluationError, match="cannot be read as weights alone"):
        Detector.load(find_detector(str(unsafe), tmp_path), CPU)


def _rename(before: bytes, after: bytes, path: Path) -> None:
    """Replace a name in the pickle of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(before, after) if name.endswith("data.pkl") else content)


def test_a_checkpoint_that_would_run_code_is_refused(small: None, tmp_path: Path) -> None:
    unsafe = write_openmmlab(tmp_path / "any.pth", hook=pytest.raises)
    with pytest.raises(EvaluationError, match="cannot be read as weights alone"):
        Detector.load(find_detector(str(unsafe), tmp_path), CPU)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps([1, 2], protocol=2)])
def test_a_damaged_checkpoint_is_one_clear_line(small: None, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "any.pth").write_bytes(content)
    with pytest.raises(EvaluationError, match=r"any\.pth.*setup_eval\.sh") as caught:
        Detector.load(find_detector(str(tmp_path / "any.pth"), tmp_path), CPU)
    assert "\n" not in str(caught.value)


def test_a_folder_of_transformers_is_another_variant(tmp_path: Path) -> None:
    judges.write_detector(tmp_path / "checkpoints" / "mask2former-swin-small-coco-instance")
    file = find_detector("meta", tmp_path)
    assert file.variant.startswith("mask2former-meta-")
    found = Detector.load(file, CPU).find(Image.effect_noise((64, 48), 90).convert("RGB"), 0.3)
    assert [CLASS_NAMES[one.label] for one in found] == [judges.SEEN_EVERYWHERE]


def test_a_folder_of_other_classes_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    judges.small_mask2former(replace(judges.SMALL, num_classes=133)).save_pretrained(tmp_path)
    with pytest.raises(EvaluationError, match="knows 133 classes, not the 80"):
        Detector.load(find_detector(str(tmp_path), tmp_path), CPU)


def test_the_full_architecture_is_that_of_the_checkpoint() -> None:
    config = detector.swin_small()
    swin = config.backbone_config
    assert (swin.embed_dim, swin.depths, swin.num_heads, swin.window_size) == (96, [2, 2, 18, 2], [3, 6, 12, 24], 7)
    assert (config.num_queries, config.encoder_layers, config.decoder_layers - 1) == (100, 6, 9)
    assert (config.hidden_dim, config.num_attention_heads, config.num_labels) == (256, 8, 80)
