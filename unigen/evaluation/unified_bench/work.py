# SPDX-License-Identifier: Apache-2.0
"""What there is to caption, to draw again and to compare, and where each of it lies."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unigen.config.evaluation import SimilarityEncoderConfig, UnifiedBenchConfig
from unigen.errors import EvaluationError
from unigen.evaluation.items import Item, expand
from unigen.evaluation.job import Job
from unigen.evaluation.unified_bench.encoders import choose_encoders
from unigen.evaluation.unified_bench.pairing import images_of

NAME = "unified_bench"
SET = Path("datasets", NAME)
RELEASE = "https://github.com/PKU-YuanGroup/UAE/releases/download/v1.0/Image.zip"
CAPTIONS, SCORES = "captions", "scores"


@dataclass(frozen=True)
class Work:
    """The images in order, an item for each, and the encoders that compare."""

    job: Job
    root: Path
    images: Sequence[Path]
    items: Sequence[Item]
    encoders: Mapping[str, SimilarityEncoderConfig]

    @classmethod
    def of(cls, job: Job) -> "Work":
        """Find images and encoders by name.

        Raises:
            EvaluationError: the images are not there or too few, two would share a name, or an encoder is not known.
        """
        settings = job.options.unified_bench
        encoders = choose_encoders(settings.models, settings.encoders)
        root = Path(settings.images) if settings.images else job.options.data_root / SET
        images = _images(root, settings, job.options.is_partial_allowed)
        _require_different_names(root, images)
        return cls(job, root, images, expand(NAME, len(images), 1, job.options.seed), encoders)

    @property
    def is_other_number(self) -> bool:
        return len(self.images) != self.job.options.unified_bench.num_images

    @property
    def question(self) -> str:
        """What asks for a caption."""
        asked = self.job.options.unified_bench.question
        return self.job.pipeline.caption_request if asked is None else asked

    @property
    def captioning(self) -> dict[str, Any]:
        """The settings of writing that differ from the family's."""
        settings = self.job.options.unified_bench
        given = {"max_new_tokens": settings.max_new_tokens, "temperature": settings.caption_temperature}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def captions(self) -> Path:
        """The folder of the records of captions."""
        return self.job.folder / CAPTIONS

    def scored(self, name: str) -> Job:
        """The same job in the folder of what one encoder says."""
        return replace(self.job, folder=self.job.folder / SCORES / name)

    def name(self, item: Item) -> str:
        """What results call an image: its path below the images' folder."""
        return self.images[item.index].relative_to(self.root).as_posix()

    def path(self, item: Item) -> Path:
        """Where the redrawn image lies below the folder of drawings: as its original, so that the folders can be compared."""
        return self.images[item.index].relative_to(self.root).with_suffix(".png")

    def identity(self) -> dict[str, Any]:
        """What captions and drawings depend on."""
        captioning = {"question": self.question, **self.captioning}
        return self.job.identity(
            images_hash(self.root, self.images), captioning=captioning, drawing=self.job.options.drawing.given()
        )


def images_hash(root: Path, images: Sequence[Path]) -> str:
    """SHA-256 over names and contents of images."""
    digest = hashlib.sha256()
    for path in images:
        for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def _images(root: Path, settings: UnifiedBenchConfig, is_partial_allowed: bool) -> list[Path]:
    wanted = settings.num_images
    if wanted < 1:
        raise EvaluationError(f"unified_bench.num_images is {wanted}; give a number above 0")
    try:
        images = images_of(root)[:wanted]
    except EvaluationError as error:
        fetch = "" if settings.images else f"unpack {RELEASE} there, or "
        raise EvaluationError(f"{error}; {fetch}name a folder by unified_bench.images=DIR") from error
    if len(images) < wanted and not is_partial_allowed:
        raise EvaluationError(
            f"{NAME} takes {wanted} images, but {root} has {len(images)}; add what is missing, set "
            f"unified_bench.num_images={len(images)} for a set of your own, or --allow-partial"
        )
    return images


def _require_different_names(root: Path, images: Sequence[Path]) -> None:
    (name, count), *_ = Counter(path.relative_to(root).with_suffix("") for path in images).most_common(1)
    if count > 1:
        raise EvaluationError(
            f"{count} images of {root} are called {name}, and their drawings would be too; rename them"
        )
