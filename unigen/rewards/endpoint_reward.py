# SPDX-License-Identifier: Apache-2.0
"""A server as a reward.

Posted is one JSON object of lists of one length: `keys`, `prompts`, `images` (PNG files in base64), and with
`compares: original` also `originals` (the same, null where there is none). The answer is {"rewards": [...]} with a number for
each, null where the server has none. Other answers: 429 and 5xx are tried again, another 4xx says that this batch cannot be
scored (then its images are sent one by one).
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
from PIL import Image

from unigen.errors import ConfigError, RewardError, RewardServerError
from unigen.rewards.judged import Judged

NOT_OURS = (401, 403, 404, 405)
"""Answers of a server that is not the one that was meant, or lets nobody in."""
BUSY = 429
NUM_CHARACTERS_SHOWN = 200


class _PassingError(Exception):
    """What may be better at the next attempt."""


class EndpointReward:
    """What the server at an address answers."""

    def __init__(
        self,
        url: str,
        *,
        sends_originals: bool = True,
        timeout_seconds: float = 120.0,
        num_attempts: int = 5,
        first_pause_seconds: float = 0.5,
        longest_pause_seconds: float = 30.0,
    ) -> None:
        """
        Raises:
            ConfigError: tenacity, which tries again, is not installed.
        """
        try:
            import tenacity
        except ImportError as error:
            raise ConfigError(f"{error.name} is not installed: run `bash scripts/setup.sh annotate`") from error
        self._url, self._sends_originals = url, sends_originals
        self._timeout_seconds, self._num_attempts = timeout_seconds, num_attempts
        self._attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            stop=tenacity.stop_after_attempt(num_attempts),
            wait=tenacity.wait_exponential_jitter(first_pause_seconds, longest_pause_seconds, jitter=0.25),
            reraise=True,
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"kind": "endpoint", "url": self._url, "sends_originals": self._sends_originals}

    def score(self, items: Sequence[Judged]) -> list[float]:
        """
        Raises:
            RewardError: the server cannot score these images.
            RewardServerError: it gives no answer, or is too busy, at every attempt.
            ConfigError: it refuses us, or answers something else than rewards.
        """
        content: dict[str, list[str | None]] = {
            "keys": [item.key for item in items],
            "prompts": [item.prompt for item in items],
            "images": [_encoded(item.image) for item in items],
        }
        if self._sends_originals:
            content["originals"] = [None if item.original is None else _encoded(item.original) for item in items]
        try:
            answer = self._attempts(self._post, content)
        except _PassingError as error:
            raise RewardServerError(
                f"no answer from {self._url} in {self._num_attempts} attempts, last {error}"
            ) from error
        rewards = answer.get("rewards") if isinstance(answer, dict) else None
        if not isinstance(rewards, list) or len(rewards) != len(items):
            raise ConfigError(
                f'{self._url} answers {str(answer)[:NUM_CHARACTERS_SHOWN]!r}; wanted is {{"rewards": [...]}} with a number '
                f"for each of {len(items)} images"
            )
        return [math.nan if value is None else float(value) for value in rewards]

    def _post(self, content: Mapping[str, Any]) -> Any:
        try:
            response = httpx2.post(self._url, json=content, timeout=self._timeout_seconds)
        except httpx2.TransportError as error:  # timeouts too
            raise _PassingError(f"{type(error).__name__}: {error}") from error
        said = f"{response.status_code} {response.text[:NUM_CHARACTERS_SHOWN]!r}"
        if response.status_code == BUSY or response.is_server_error:
            raise _PassingError(said)
        if response.status_code in NOT_OURS:
            raise ConfigError(f"the reward server {self._url} refuses: {said}")
        if not response.is_success:
            raise RewardError(f"{self._url} answers {said}")
        try:
            return response.json()
        except ValueError as error:  # a proxy's page, or half an answer
            raise _PassingError(f"no JSON: {said}") from error


def _encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "png", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
