# SPDX-License-Identifier: Apache-2.0
"""Whether an image of the world of shapes is what a GenEval-style prompt asks for, by the detector and GenEval's rule."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from unigen.data.shapes.detector import ACCEPTED_SCORE, detect
from unigen.rewards.geneval_rules import Thresholds, Verdict, judge

THRESHOLDS = Thresholds(score=ACCEPTED_SCORE, counting_score=ACCEPTED_SCORE)


def judge_image(entry: Mapping[str, Any], image: Image.Image) -> Verdict:
    """GenEval's decision over what the detector finds.

    Raises:
        EvaluationError: the entry is not of GenEval's schema.
    """
    return judge(entry, detect(image), THRESHOLDS)
