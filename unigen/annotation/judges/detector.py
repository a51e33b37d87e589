# SPDX-License-Identifier: Apache-2.0
"""The detector of shapes as a judge: it answers, exactly, questions that carry what they check.

A question's `check` is a line of GenEval's schema (`include`, perhaps `exclude`); the answer is GenEval's decision over it.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from unigen.annotation.judges.judge import Reply, Request, reason_of
from unigen.data.detection import Detection
from unigen.data.faults import SampleRefused
from unigen.data.images import decode_image
from unigen.data.shapes.detector import detect
from unigen.errors import EvaluationError
from unigen.rewards.geneval_rules import judge
from unigen.rewards.shapes import THRESHOLDS

K = TypeVar("K")


class DetectorJudge:
    def identity(self) -> Mapping[str, Any]:
        return {"kind": "detector"}

    def notes(self) -> Mapping[str, Any]:
        return {}

    def replies(self, requests: Iterable[tuple[K, Request]]) -> Iterator[tuple[K, Reply]]:
        for key, request in requests:
            yield key, _reply(request)


def _reply(request: Request) -> Reply:
    check = request.fields.get("check")
    if request.image is None or not isinstance(check, Mapping):
        return Reply(error=f"the detector answers only questions made by rule, with a `check`: {request.text!r}")
    try:
        verdict = judge(check, _detections(request.image), THRESHOLDS)
    except (EvaluationError, SampleRefused) as error:
        return Reply(error=reason_of(error))
    return Reply("yes" if verdict.correct else "no")


@lru_cache(maxsize=16)
def _detections(content: bytes) -> list[Detection]:
    """What is in an image; its questions come one after another."""
    return detect(decode_image(content))
