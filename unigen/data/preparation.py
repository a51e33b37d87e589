# SPDX-License-Identifier: Apache-2.0
"""From a decoded record to a row to be: template, image pixels, and the draws of this visit."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from unigen.config.schema import TASKS
from unigen.data.batch import CodeImage, Sample
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.images import padded_pixels, square_pixels
from unigen.data.sample import RawSample, Turn
from unigen.sequence.layout import Document, Segment
from unigen.sequence.mask_schedule import draw_mask
from unigen.sequence.templates.unifork import UniForkTemplate
from unigen.sequence.templates.unigen import RowTooLongError, UnigenTemplate


@dataclass(frozen=True)
class VisionPreparation:
    """What the data room needs of a vision tower: how to make an image ready, and how many features it will have."""

    preprocess: Callable[[Image.Image], object]
    num_features: Callable[[Any], int]


@dataclass(frozen=True)
class RowPreparer:
    """Makes the rows of UniGen and UniFork; called in the loader's workers."""

    template: UnigenTemplate | UniForkTemplate
    image_resolution: int
    prompt_drop_prob: float
    mask_schedule: str | None = None
    """How many codes of a drawn image are hidden; None where each is predicted from those before it."""
    min_mask_ratio: float = 0.0
    vision: VisionPreparation | None = None
    num_crops: int = 1
    """Squares of an image that goes into codes, of which a visit draws one."""
    reads_padded: bool = False
    """Whether images that are read are whole, padded to a square, instead of cropped."""

    def __call__(self, raw: RawSample, draws: Draws) -> Sample:
        try:
            return self._row(raw, draws)
        except RowTooLongError as error:
            raise SampleRefused("too_long", str(error)) from error

    def _row(self, raw: RawSample, draws: Draws) -> Sample:
        if raw.task == "t2i":
            return self._draw(raw, draws)
        if raw.task == "lm":
            return self._sample(raw, self.template.plain(raw.text))
        return self._read_codes(raw, draws) if self.vision is None else self._read_features(raw, self.vision)

    def _draw(self, raw: RawSample, draws: Draws) -> Sample:
        is_dropped = draws.generator("prompt drop").uniform() < self.prompt_drop_prob
        mask_I = None
        if self.mask_schedule is not None:
            mask_I = draw_mask(
                draws.generator("mask"), self.template.num_image_codes, self.mask_schedule, self.min_mask_ratio
            )
        (content,) = self._code_contents(raw, draws)
        image = CodeImage(content, mask_I)
        return self._sample(raw, self.template.draw("" if is_dropped else raw.text, supervised=True), (image,))

    def _code_contents(self, raw: RawSample, draws: Draws) -> list[Tensor | np.ndarray]:
        """One square of each image, as pixels or as its codes."""
        count = len(raw.codes) or len(raw.images)
        is_padded = self.reads_padded and raw.task != "t2i"
        crops = [0] * count
        if self.num_crops > 1 and not is_padded:
            crops = draws.generator("crop").integers(self.num_crops, size=count).tolist()
        if raw.codes:
            return [codes_KI[crop] for codes_KI, crop in zip(raw.codes, crops, strict=True)]
        if is_padded:
            return [padded_pixels(image, self.image_resolution) for image in raw.images]
        return [
            square_pixels(image, self.image_resolution, crop, self.num_crops)
            for image, crop in zip(raw.images, crops, strict=True)
        ]

    def _read_codes(self, raw: RawSample, draws: Draws) -> Sample:
        images = tuple(CodeImage(content) for content in self._code_contents(raw, draws))
        return self._sample(raw, self.template.read_codes(exchanges(raw.turns), len(images)), images)

    def _read_features(self, raw: RawSample, vision: VisionPreparation) -> Sample:
        seen = tuple(vision.preprocess(image) for image in raw.images)
        assert isinstance(self.template, UnigenTemplate), "UniFork reads through its image tokenizer"
        segments = self.template.read_features(exchanges(raw.turns), [vision.num_features(one) for one in seen])
        return self._sample(raw, segments, feature_images=seen)

    def _sample(
        self,
        raw: RawSample,
        segments: tuple[Segment, ...],
        code_images: tuple[CodeImage, ...] = (),
        feature_images: tuple[object, ...] = (),
    ) -> Sample:
        return Sample(raw.key, Document(TASKS.index(raw.task), segments), code_images, feature_images)


@dataclass(frozen=True)
class PairPreparer:
    """Makes the two rows of a preference: that of the chosen image, which holds that of the rejected one."""

    rows: RowPreparer
    pairing: Literal["shared", "released"]
    """`shared`: both rows come of the same draws. `released`: each has draws of its own."""

    @property
    def template(self) -> UnigenTemplate | UniForkTemplate:
        return self.rows.template

    def __call__(self, raw: RawSample, draws: Draws) -> Sample:
        others = draws if self.pairing == "shared" else replace(draws, key=f"{draws.key}|rejected")
        chosen, rejected = raw.images
        return replace(
            self.rows(replace(raw, images=(chosen,)), draws),
            rejected=self.rows(replace(raw, images=(rejected,)), others),
            visit=draws.visit,
        )


@dataclass(frozen=True)
class ImagePreparer:
    """Square images to be rebuilt, and their captions."""

    resolution: int

    def __call__(self, raw: RawSample, draws: Draws) -> Sample:
        return Sample(
            raw.key, _no_row(raw), target_image=square_pixels(raw.images[0], self.resolution), caption=raw.text
        )


@dataclass(frozen=True)
class CaptionedImagePreparer:
    """Images made ready for a vision tower, with their captions."""

    preprocess: Callable[[Image.Image], object]

    def __call__(self, raw: RawSample, draws: Draws) -> Sample:
        return Sample(raw.key, _no_row(raw), feature_images=(self.preprocess(raw.images[0]),), caption=raw.text)


def blank_image(side: int) -> Image.Image:
    """An image for forward passes that count for nothing."""
    return Image.new("RGB", (side, side))


def _no_row(raw: RawSample) -> Document:
    return Document(TASKS.index(raw.task), ())


def exchanges(turns: tuple[Turn, ...]) -> list[tuple[str, str]]:
    """Pairs of (question, answer); a question that nobody answered is dropped."""
    pairs = []
    question = ""
    for turn in turns:
        if turn.role == "user":
            question = turn.text
        else:
            pairs.append((question, turn.text))
    return pairs
