# SPDX-License-Identifier: Apache-2.0
"""Who judges GenEval's images: a detector, a classifier of colours and the rules with their thresholds."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unigen.config.evaluation import GenevalConfig
from unigen.config.folders import weights_hash
from unigen.data.detection import Detection
from unigen.evaluation.geneval.classes import CLASS_NAMES
from unigen.evaluation.geneval.colors import ColorClassifier, find_clip
from unigen.evaluation.geneval.detector import Detector, DetectorFile, find_detector
from unigen.evaluation.geneval.postprocess import Instance
from unigen.rewards.geneval_rules import Thresholds, Verdict, candidates_for_color, group_by_class, judge

OFFICIAL_PROMPTS = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
"""SHA-256 of the prompt file of the official benchmark (553 lines)."""
NOT_IN_A_NAME = ("prompts", "detector", "clip", "golden")
"""Settings that a variant names by what they led to, or that change no score."""

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    """The verdict over one image and the objects that it rests on."""

    verdict: Verdict
    objects: dict[str, list[Detection]]
    """Detections that count by class, best first; those that were asked for it with their colour."""

    @property
    def details(self) -> dict[str, list[list[float]]]:
        """The objects as the official results have them: x0, y0, x1, y1, score."""
        return {name: [[*one.box, one.score] for one in group] for name, group in self.objects.items() if group}


@dataclass(frozen=True)
class JudgeFiles:
    """The judge's files, found but not loaded: what a score is called, and what tells it from others."""

    settings: GenevalConfig
    detector: DetectorFile
    clip: Path
    clip_sha256: str

    @classmethod
    def find(cls, settings: GenevalConfig, data_root: Path) -> "JudgeFiles":
        """Look for them.

        Raises:
            EvaluationError: one is not there, with the places that were looked at.
        """
        clip = find_clip(settings.clip, data_root)
        return cls(settings, find_detector(settings.detector, data_root), clip, weights_hash(clip))

    def variant(self, prompts_sha256: str) -> str:
        """The name of a score: the detector, and whatever is not as in the official benchmark."""
        usual = GenevalConfig()
        parts = [self.detector.variant]
        if prompts_sha256 != OFFICIAL_PROMPTS:
            parts.append(f"prompts-{prompts_sha256[:8]}")
        if self.settings.clip != usual.clip:
            parts.append(f"clip-{self.clip_sha256[:8]}")
        names = [one.name for one in fields(GenevalConfig) if one.name not in NOT_IN_A_NAME]
        changed = {name: getattr(self.settings, name) for name in names}
        parts += [f"{name}={value}" for name, value in changed.items() if value != getattr(usual, name)]
        return "+".join(parts)

    def describe(self) -> dict[str, Any]:
        """What a result should say of its judge."""
        settings = {one.name: getattr(self.settings, one.name) for one in fields(GenevalConfig)}
        return {
            "detector": {
                "path": str(self.detector.path),
                "sha256": self.detector.sha256,
                "is_known": self.detector.is_known,
            },
            "clip": {"path": str(self.clip), "sha256": self.clip_sha256},
            "settings": {name: value for name, value in settings.items() if name not in NOT_IN_A_NAME},
        }

    def load(self, device: torch.device) -> "ImageJudge":
        """Load the two models."""
        classifier = ColorClassifier.load(self.clip, device, self.settings.background, self.settings.crop)
        return ImageJudge(Detector.load(self.detector, device), classifier, thresholds_of(self.settings))


class ImageJudge:
    """Says of an image whether it is what its prompt asks for."""

    def __init__(self, detector: Detector, classifier: ColorClassifier, thresholds: Thresholds) -> None:
        self.detector, self.classifier, self.thresholds = detector, classifier, thresholds

    def judge(self, entry: Entry, image: Image.Image) -> Judgement:
        """Judge an upright RGB image by one line of the prompt file.

        Raises:
            EvaluationError: the image or the line cannot be judged.
        """
        least = min(self.thresholds.score, self.thresholds.counting_score)
        found = [(_detection(one), one) for one in self.detector.find(image, least)]
        detections = [detection for detection, _ in found]
        instances = {id(detection): one for detection, one in found}
        asked = {id(one): one for one in candidates_for_color(entry, detections, self.thresholds)}
        colors: dict[int, str] = {}
        for name in dict.fromkeys(one.class_name for one in asked.values()):
            group = [key for key, one in asked.items() if one.class_name == name]
            colors |= zip(group, self.classifier.classify(image, [instances[key] for key in group], name), strict=True)
        colored = [replace(one, color=colors.get(id(one))) for one in detections]
        return Judgement(judge(entry, colored, self.thresholds), dict(group_by_class(entry, colored, self.thresholds)))


def thresholds_of(settings: GenevalConfig) -> Thresholds:
    """The rules' thresholds out of the settings."""
    return Thresholds(**{one.name: getattr(settings, one.name) for one in fields(Thresholds)})


def _detection(instance: Instance) -> Detection:
    return Detection(CLASS_NAMES[instance.label], instance.box, instance.score)
