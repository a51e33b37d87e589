# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of this project as a judge of images."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from unigen.annotation.judges.judge import Reply, Request, reason_of
from unigen.data.faults import SampleRefused
from unigen.data.images import decode_image
from unigen.generation.pipeline import AskRequest, Pipeline

K = TypeVar("K")


class PipelineJudge:
    """Asks a model through its own pipeline, batch by batch."""

    def __init__(self, pipeline: Pipeline, *, max_tokens: int, temperature: float, batch_size: int) -> None:
        self._pipeline, self._batch_size = pipeline, batch_size
        self._model = pipeline.describe()  # hashes the weights, so once
        self._writing = {"max_new_tokens": max_tokens, "temperature": temperature}

    def identity(self) -> Mapping[str, Any]:
        weights, dtype = self._model.get("weights", {}), self._model.get("dtype")
        return {"kind": "unigen", "weights": weights, "dtype": dtype, **self._writing}

    def notes(self) -> Mapping[str, Any]:
        return {"judge_model": self._model}

    def replies(self, requests: Iterable[tuple[K, Request]]) -> Iterator[tuple[K, Reply]]:
        for group, refused in readable_groups(requests, self._batch_size):
            yield from refused
            asked = [AskRequest(request.text, images) for _, request, images in group]
            answers = self._pipeline.ask_requests(asked, batch_size=self._batch_size, **self._writing)
            yield from ((key, Reply(answer)) for (key, _, _), answer in zip(group, answers, strict=True))


Readable = tuple[K, Request, tuple[Any, ...]]


def readable_groups(
    requests: Iterable[tuple[K, Request]], size: int
) -> Iterator[tuple[list[Readable[K]], list[tuple[K, Reply]]]]:
    """Groups of up to `size` requests with their images decoded, and replies to those whose image cannot be read."""
    iterator = iter(requests)
    while batch := list(islice(iterator, size)):
        group: list[Readable[K]] = []
        refused: list[tuple[K, Reply]] = []
        for key, request in batch:
            try:
                images = () if request.image is None else (decode_image(request.image),)
                group.append((key, request, images))
            except SampleRefused as error:
                refused.append((key, Reply(error=reason_of(error))))
        yield group, refused
