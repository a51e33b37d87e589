# SPDX-License-Identifier: Apache-2.0
"""GenEval's detector: a Mask2Former out of OpenMMLab's checkpoint, or out of a folder of transformers (Meta's weights are one).

The two were trained apart and score single images differently, so every score says which it was made with.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unigen.config.folders import weights_hash
from unigen.data.manifest import file_hash
from unigen.errors import EvaluationError
from unigen.evaluation.geneval.classes import CLASS_NAMES
from unigen.evaluation.geneval.folders import load_whole
from unigen.evaluation.geneval.mask2former_weights import load_openmmlab
from unigen.evaluation.geneval.pixels import prepare
from unigen.evaluation.geneval.postprocess import Instance, find_instances

OPENMMLAB_FILES = "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco*.pth"
META_FOLDER = "mask2former-swin-small-coco-instance"
PLACES = ("checkpoints/mask2former", "checkpoints")
"""Where the released evaluation looks for the checkpoint, below the data root; one command in one, another in the other."""
KNOWN = {"743b7d99": "mask2former-openmmlab-20220504"}
"""The first digits of a checkpoint's SHA-256, which OpenMMLab also writes into the file's name, and the variant's name."""

NUM_CLASSES = len(CLASS_NAMES)
_NUMBERS = np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"
"""NumPy's codes of whole numbers, real numbers and booleans."""


@dataclass(frozen=True)
class DetectorFile:
    """A checkpoint that was found, not loaded yet."""

    path: Path
    sha256: str

    @property
    def is_openmmlab(self) -> bool:
        return self.path.is_file()

    @property
    def is_known(self) -> bool:
        """Whether it is the very file whose thresholds GenEval chose."""
        return self.is_openmmlab and self.sha256[:8] in KNOWN

    @property
    def variant(self) -> str:
        """The name that a score made with it carries."""
        if self.is_known:
            return KNOWN[self.sha256[:8]]
        origin = "openmmlab-" if self.is_openmmlab else "meta-" if self.path.name == META_FOLDER else ""
        return f"mask2former-{origin}{self.sha256[:8]}"


class Detector:
    """Finds the objects of images, one image at a time, in float32."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.device = device
        self.model = model.to(device).eval()

    @classmethod
    def load(cls, file: DetectorFile, device: torch.device) -> "Detector":
        """Load a checkpoint.

        Raises:
            EvaluationError: the file is damaged, unsafe, or of another architecture.
        """
        return cls(_load_openmmlab(file.path) if file.is_openmmlab else _load_folder(file.path), device)

    def find(self, image: Image.Image, min_score: float = 0.0) -> list[Instance]:
        """The objects of an RGB image that may score above `min_score`."""
        prepared = prepare(image)
        classes_QK, masks_QHW = self.logits(prepared.pixels_CHW)
        return find_instances(classes_QK, masks_QHW, prepared.resized, prepared.original, min_score)

    @torch.inference_mode()
    def logits(self, pixels_CHW: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (queries, classes and one for none) and mask logits (queries, H / 4, W / 4) of one prepared image."""
        found = self.model(pixel_values=pixels_CHW[None].to(self.device))
        return found.class_queries_logits[0], found.masks_queries_logits[0]


def find_detector(name: str | None, data_root: Path) -> DetectorFile:
    """The checkpoint that a setting means: OpenMMLab's in one of its places if None, Meta's folder for `meta`, else a file
    (OpenMMLab's format) or a folder (of transformers), as given or under `<data_root>/checkpoints`.

    Raises:
        EvaluationError: there is none, with all places that were looked at.
    """
    if name is None:
        tried = [data_root / place / OPENMMLAB_FILES for place in PLACES]
        found = [path for pattern in tried for path in sorted(pattern.parent.glob(pattern.name)) if path.is_file()]
    else:
        wanted = META_FOLDER if name == "meta" else name
        tried = [Path(wanted), *(data_root / place / wanted for place in PLACES)]
        found = [path for path in tried if path.is_file() or (path / "config.json").is_file()]
    if not found:
        places = ", ".join(str(path) for path in tried)
        raise EvaluationError(
            f"no detector at {places}; run scripts/setup_eval.sh, or name one by geneval.detector=PATH"
        )
    return DetectorFile(found[0], file_hash(found[0]) if found[0].is_file() else weights_hash(found[0]))


def swin_small() -> Any:
    """The architecture of `mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco`."""
    from transformers import Mask2FormerConfig, SwinConfig

    backbone: dict[str, Any] = {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
    backbone["out_features"] = ["stage1", "stage2", "stage3", "stage4"]
    settings: dict[str, Any] = {"num_labels": NUM_CLASSES}
    return Mask2FormerConfig(backbone_config=SwinConfig(**backbone), **settings)


def _load_openmmlab(path: Path) -> Any:
    from transformers import Mask2FormerForUniversalSegmentation

    content = _read_safely(path)
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise EvaluationError(f"{path} holds no state dict of a model; run scripts/setup_eval.sh")
    model = Mask2FormerForUniversalSegmentation(swin_small())
    load_openmmlab(model, state)
    return model


def _read_safely(path: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise EvaluationError(f"{path} cannot be read as weights alone: {first}; run scripts/setup_eval.sh") from error
    if not isinstance(content, dict):
        raise EvaluationError(f"{path} holds a {type(content).__name__}, no model; run scripts/setup_eval.sh")
    return content


def _numpy_numbers() -> list[Any]:
    """What a pickled number of NumPy is made of. Checkpoints of OpenMMLab and Meta hold such numbers (the best score so far),
    which reading weights alone refuses; the name of NumPy 1 is that of a file written with it."""
    scalar = np.float64(0).__reduce__()[0]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *(type(np.dtype(code)) for code in _NUMBERS)]


def _load_folder(folder: Path) -> Any:
    from transformers import Mask2FormerForUniversalSegmentation

    model = load_whole(Mask2FormerForUniversalSegmentation, folder, "a Mask2Former")
    if model.config.num_labels != NUM_CLASSES:
        raise EvaluationError(f"{folder} knows {model.config.num_labels} classes, not the {NUM_CLASSES} of COCO")
    return model
