# SPDX-License-Identifier: Apache-2.0
"""What colour an object has, by CLIP: the object alone on grey, against texts that name its class in ten colours.

OpenAI's CLIP was trained with QuickGELU. A build with the plain GELU gives other answers without a word, so it is refused.

Legend: N objects, T texts, D width of the embeddings, K colours, C H W an image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unigen.config.folders import find_model
from unigen.data.images import square
from unigen.errors import CheckpointError, EvaluationError
from unigen.evaluation.geneval.folders import load_whole
from unigen.evaluation.geneval.postprocess import Instance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
BATCH_SIZE = 16
LOGIT_SCALE = 100.0
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
KEPT_BACKGROUND = "original"


class ColorClassifier:
    """Names the colour of objects."""

    def __init__(
        self,
        model: Any,
        tokenizer: "PreTrainedTokenizerBase",
        device: torch.device,
        background: str,
        crop: bool,
    ) -> None:
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.device, self.background, self.crop = device, background, crop
        self.side: int = model.config.vision_config.image_size
        self._classifiers: dict[str, Tensor] = {}

    @classmethod
    def load(cls, folder: Path, device: torch.device, background: str, crop: bool) -> "ColorClassifier":
        """Load a CLIP of transformers.

        Raises:
            EvaluationError: the folder holds none, or one with another activation than OpenAI's.
        """
        from transformers import AutoTokenizer, CLIPModel

        model = load_whole(CLIPModel, folder, "a CLIP")
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{folder} has no tokenizer: {' '.join(str(error).split())}") from error
        activations = {model.config.text_config.hidden_act, model.config.vision_config.hidden_act}
        if activations != {"quick_gelu"}:
            raise EvaluationError(
                f"{folder} is a CLIP with {' and '.join(sorted(activations))}; GenEval wants quick_gelu"
            )
        return cls(model, tokenizer, device, background, crop)

    def classify(self, image: Image.Image, objects: Sequence[Instance], name: str) -> list[str]:
        """The colour of each of some objects of one class in an RGB image."""
        return [COLORS[index] for index in self.logits(image, objects, name).argmax(-1).tolist()]

    @torch.inference_mode()
    def logits(self, image: Image.Image, objects: Sequence[Instance], name: str) -> Tensor:
        """(N, K): 100 times the cosine of each object and each colour."""
        pixels_NCHW = torch.stack([self.pixels(isolated(image, one, self.background, self.crop)) for one in objects])
        rows = []
        for pixels in pixels_NCHW.split(BATCH_SIZE):
            with self._autocast():
                features_ND = _features(self.model.get_image_features(pixel_values=pixels.to(self.device)))
                rows.append(LOGIT_SCALE * F.normalize(features_ND, dim=-1) @ self._classifier(name))
        return torch.cat(rows).float()

    def pixels(self, crop: Image.Image) -> Tensor:
        """(C, H, W): CLIP's own view, the short side resized and the middle square of it; the ends of a long crop are lost."""
        values_HWC = np.asarray(square(crop, self.side), dtype=np.float32) / 255
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        return (torch.from_numpy(values_HWC).permute(2, 0, 1) - mean) / deviation

    def _classifier(self, name: str) -> Tensor:
        """(D, K): for each colour the normalised mean of its texts' normalised embeddings."""
        if name not in self._classifiers:
            columns = [self._embed([one.format(color=color, name=name) for one in TEMPLATES]) for color in COLORS]
            self._classifiers[name] = torch.stack(columns, dim=1)
        return self._classifiers[name]

    def _embed(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.device)
        features_TD = _features(
            self.model.get_text_features(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        )
        return F.normalize(F.normalize(features_TD, dim=-1).mean(0), dim=-1)

    def _autocast(self) -> torch.autocast:
        """Half precision on a GPU, as in the official evaluation."""
        return torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda")


def find_clip(name: str, data_root: Path) -> Path:
    """The folder of a CLIP.

    Raises:
        EvaluationError: there is none, with all places that were looked at.
    """
    try:
        return find_model(name, data_root)
    except CheckpointError as error:
        raise EvaluationError(f"the colours' CLIP: {error}; run scripts/setup_eval.sh") from error


def isolated(image: Image.Image, instance: Instance, background: str, crop: bool) -> Image.Image:
    """An object's pixels on a flat colour, cut out to its box."""
    if background != KEPT_BACKGROUND:
        blank = Image.new("RGB", image.size, color=background)
        image = Image.composite(image, blank, Image.fromarray(instance.mask_HW.numpy()))
    left, upper, right, lower = instance.box
    return image.crop((int(left), int(upper), int(right), int(lower))) if crop else image


def _features(found: Any) -> Tensor:
    """transformers 5 wraps what earlier versions gave as it is."""
    features: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return features
