# SPDX-License-Identifier: Apache-2.0
"""A judge behind any OpenAI-compatible address, such as `vllm serve` in an environment of its own.

Many requests are in flight at once. One that fails for want of a server, a slot or time is tried again after a pause that
doubles; the keys are read from the environment by the client and are put nowhere else.
"""

import asyncio
import base64
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from PIL import Image, UnidentifiedImageError

from unigen.annotation.judges.judge import Reply, Request, reason_of
from unigen.data.faults import SampleRefused
from unigen.data.images import decode_image
from unigen.errors import ConfigError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from tenacity import AsyncRetrying

K = TypeVar("K")
SENT_AS_THEY_ARE = ("image/png", "image/jpeg", "image/webp")
"""Kinds of image files that every server reads; others are sent as PNG."""
MOST_FAILURES_IN_A_ROW = 16
"""Requests that may fail one after another, each after all its attempts, before the rest is not tried any more."""
KEY_NAMES = ("OPENAI_API_KEY", "OPENAI_ORG")
ADDRESS_NAME = "OPENAI_BASE_URL"


@dataclass(frozen=True)
class EndpointSettings:
    """Whom to ask, and how."""

    model: str
    base_url: str | None = None
    """The environment's OPENAI_BASE_URL, else OpenAI's own, when not given."""
    max_tokens: int = 256
    temperature: float = 0.0
    num_in_flight: int = 32
    """Requests that wait for their reply at once."""
    num_attempts: int = 10
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30.0
    timeout_seconds: float = 300.0
    """Longest wait for one reply."""


class EndpointJudge:
    """Asks chat completions of a server."""

    def __init__(self, settings: EndpointSettings) -> None:
        """
        Raises:
            ConfigError: the extra `annotate` is not installed, neither a key nor an address is given, or there is a
                secret in the address.
        """
        try:
            import openai
            import tenacity
        except ImportError as error:
            raise ConfigError(f"{error.name} is not installed: run `bash scripts/setup.sh annotate`") from error
        self._openai, self._tenacity = openai, tenacity
        # Timeouts are connection errors too.
        self._passing = (
            openai.APIConnectionError,
            openai.RateLimitError,
            openai.InternalServerError,
            json.JSONDecodeError,  # a proxy's page, or half an answer
        )
        self._settings = settings
        address = settings.base_url or os.environ.get(ADDRESS_NAME)
        self._address = _without_secrets(address) if address else None
        if self._address is None and not os.environ.get(KEY_NAMES[0]):
            raise ConfigError("whom to ask? set OPENAI_API_KEY, or name a server with --base-url or OPENAI_BASE_URL")
        self._num_failed_in_a_row = 0

    def identity(self) -> Mapping[str, Any]:
        chosen = self._settings
        return {
            "kind": "endpoint",
            "model": chosen.model,
            "max_tokens": chosen.max_tokens,
            "temperature": chosen.temperature,
        }

    def notes(self) -> Mapping[str, Any]:
        return {"base_url": self._address}

    def replies(self, requests: Iterable[tuple[K, Request]]) -> Iterator[tuple[K, Reply]]:
        """Replies as they come in. Once the server stays away, what is left is given up without being tried.

        Raises:
            ConfigError: the server refuses the key or does not know the model.
        """
        source = iter(requests)
        running: dict[asyncio.Task[Reply], K] = {}
        with asyncio.Runner() as runner:
            client = runner.run(self._open())
            try:
                while True:
                    while len(running) < self._settings.num_in_flight and (following := next(source, None)) is not None:
                        key, request = following
                        running[runner.get_loop().create_task(self._ask(client, request))] = key
                    if not running:
                        return
                    done = runner.run(_first_of(running))
                    for task in done:
                        yield running.pop(task), task.result()
            finally:
                runner.run(_close(client, running))

    async def _open(self) -> "AsyncOpenAI":
        chosen = self._settings
        return self._openai.AsyncOpenAI(
            api_key=os.environ.get(KEY_NAMES[0]) or "none",
            organization=os.environ.get(KEY_NAMES[1]),
            base_url=self._address,
            timeout=chosen.timeout_seconds,
            max_retries=0,
        )

    async def _ask(self, client: "AsyncOpenAI", request: Request) -> Reply:
        openai = self._openai
        if self._num_failed_in_a_row >= MOST_FAILURES_IN_A_ROW:
            return Reply(error=f"not tried, since {MOST_FAILURES_IN_A_ROW} requests in a row had failed; run again")
        try:
            async for attempt in self._attempts():
                with attempt:
                    reply = await self._complete(client, request)
            self._num_failed_in_a_row = 0
            return reply
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise ConfigError(f"the judge {self._settings.model} refuses: {_safe(error)}") from None
        except self._passing as error:
            self._num_failed_in_a_row += 1
            return Reply(error=f"no reply in {self._settings.num_attempts} attempts, last {_safe(error)}")
        except openai.APIError as error:
            return Reply(error=_safe(error))
        except SampleRefused as error:
            return Reply(error=reason_of(error))

    def _attempts(self) -> "AsyncRetrying":
        tenacity, chosen = self._tenacity, self._settings
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(self._passing),
            stop=tenacity.stop_after_attempt(chosen.num_attempts),
            wait=tenacity.wait_exponential_jitter(
                chosen.first_pause_seconds, chosen.longest_pause_seconds, jitter=0.25
            ),
            reraise=True,
        )

    async def _complete(self, client: "AsyncOpenAI", request: Request) -> Reply:
        chosen = self._settings
        completion = await client.chat.completions.create(
            model=chosen.model,
            messages=[{"role": "user", "content": _content(request)}],  # type: ignore[misc, list-item]
            max_tokens=chosen.max_tokens,
            temperature=chosen.temperature,
        )
        # A server that does not speak the protocol gives a bare string, or no choices.
        choices = getattr(completion, "choices", None)
        if not choices:
            return Reply(error="the server's answer holds no choices")
        # Half of a pair of surrogates, which JSON lets pass, could be written nowhere.
        return Reply((choices[0].message.content or "").encode("utf-8", "replace").decode())


def _without_secrets(address: str) -> str:
    """The address itself. What stands in an address is logged by client and server, so no secret may.

    Raises:
        ConfigError: it has a user, a password or a query.
    """
    parts = urlsplit(address)
    if "@" in parts.netloc or parts.query:
        raise ConfigError(
            f"the address of the judge at {parts.hostname} has a user, a password or a query in it, which logs would keep; "
            f"give the address alone, and the key in {KEY_NAMES[0]}"
        )
    return address


def _content(request: Request) -> str | list[dict[str, Any]]:
    if request.image is None:
        return request.text
    image = {"type": "image_url", "image_url": {"url": _data_address(request.image)}}
    return [image, {"type": "text", "text": request.text}]


def _data_address(content: bytes) -> str:
    try:
        media_type = Image.open(io.BytesIO(content)).get_format_mimetype()
    except UnidentifiedImageError as error:
        raise SampleRefused("unreadable_image", str(error)) from error
    if media_type not in SENT_AS_THEY_ARE:
        buffer = io.BytesIO()
        decode_image(content).save(buffer, "png")
        media_type, content = "image/png", buffer.getvalue()
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


async def _first_of(running: Iterable["asyncio.Task[Reply]"]) -> set["asyncio.Task[Reply]"]:
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    return done


async def _close(client: "AsyncOpenAI", running: Iterable["asyncio.Task[Reply]"]) -> None:
    tasks = list(running)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


def _safe(error: Exception) -> str:
    """An error in one line, with the keys struck out: servers echo what they were sent."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    for name in KEY_NAMES:
        if os.environ.get(name):
            text = text.replace(os.environ[name], "***")
    return text
