# SPDX-License-Identifier: Apache-2.0
"""Likeness as a reward: to the image that was described, or to the words that were drawn."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from unigen.errors import RewardError
from unigen.rewards.image_encoders.encoder import ImageEncoder
from unigen.rewards.image_similarity import similarities, similarities_to_texts
from unigen.rewards.judged import Judged


class EncoderReward:
    """The cosine of an encoder's features, in [-1, 1]."""

    def __init__(self, encoder: ImageEncoder, compares: Literal["original", "prompt"] = "original") -> None:
        self._encoder, self._compares = encoder, compares

    @property
    def identity(self) -> Mapping[str, Any]:
        return {**self._encoder.identity, "compares": self._compares}

    def score(self, items: Sequence[Judged]) -> list[float]:
        """
        Raises:
            RewardError: an item has no original to be compared with.
        """
        images, at_once = [item.image for item in items], max(len(items), 1)
        if self._compares == "prompt":
            return similarities_to_texts(self._encoder, images, [item.prompt for item in items], at_once).tolist()
        originals = [item.original for item in items if item.original is not None]
        if len(originals) < len(items):
            raise RewardError("there is no original image to compare with; take compares: prompt, or data of images")
        return similarities(self._encoder, images, originals, at_once).tolist()
