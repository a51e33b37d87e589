# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of this project is asked in batches."""

from tests.annotation.painter import Painter
from tests.data.archives import png
from unigen.annotation.judges.judge import Reply, Request
from unigen.annotation.judges.pipeline import PipelineJudge


def test_every_request_gets_its_reply_and_a_damaged_image_fails_alone() -> None:
    judge = PipelineJudge(Painter([]), max_tokens=5, temperature=0.0, batch_size=2)
    requests = [("a", Request("q1", png(0))), ("b", Request("q2", b"bad")), ("c", Request("q3"))]
    replies = dict(judge.replies(requests))
    assert replies["a"] == Reply("Yes, q1")
    assert replies["c"] == Reply("No, q3")
    assert "unreadable_image" in (replies["b"].error or "")
    assert judge.identity()["weights"] == {"model": "0"}
