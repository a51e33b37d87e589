# SPDX-License-Identifier: Apache-2.0
"""A reward server over real HTTP: what it is sent, what may pass, and what may not."""

import base64
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from tests.rewards.pictures import pictures
from unigen.errors import ConfigError, RewardError, RewardServerError
from unigen.rewards import Judged
from unigen.rewards.endpoint_reward import EndpointReward
from unigen.rewards.reward import Term, WeightedRewards

IMAGES = pictures(3)
ITEMS = [
    Judged(f"key-{number}", image, f"prompt {number}", IMAGES[0] if number else None)
    for number, image in enumerate(IMAGES)
]
Answer = Callable[[dict[str, Any]], tuple[int, str]]


@dataclass
class Server:
    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def server(answer: Answer) -> Iterator[Server]:
    """A server on loopback until the end of the block; `answer` gives status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(request)
            status, body = answer(request)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    class Listening(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that stopped waiting leaves a broken connection, which is no news."""
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    listening = Listening(("127.0.0.1", 0), Handler)
    served = Server(f"http://127.0.0.1:{listening.server_address[1]}/score")
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield served
    finally:
        listening.shutdown()
        listening.server_close()


def decoded(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def widths(request: dict[str, Any]) -> tuple[int, str]:
    return 200, json.dumps({"rewards": [decoded(image).width for image in request["images"]]})


def reward(url: str, **settings: Any) -> EndpointReward:
    return EndpointReward(url, first_pause_seconds=0.01, longest_pause_seconds=0.02, **settings)


def test_images_travel_whole_with_their_prompts_and_originals() -> None:
    with server(widths) as served:
        assert reward(served.url).score(ITEMS) == [48.0, 29.0, 32.0]
    (request,) = served.asked
    assert (request["keys"], request["prompts"]) == (
        ["key-0", "key-1", "key-2"],
        ["prompt 0", "prompt 1", "prompt 2"],
    )
    for encoded, image in zip(request["images"], IMAGES, strict=True):
        assert decoded(encoded).format == "PNG"
        assert decoded(encoded).tobytes() == image.tobytes()
    assert request["originals"][0] is None
    assert decoded(request["originals"][1]).tobytes() == IMAGES[0].tobytes()


def test_originals_stay_where_only_the_prompt_counts() -> None:
    with server(widths) as served:
        reward(served.url, sends_originals=False).score(ITEMS)
    assert "originals" not in served.asked[0]


@pytest.mark.parametrize("passing", [(429, "busy"), (500, "broken"), (503, "starting"), (200, "<html>a proxy</html>")])
def test_what_may_pass_is_tried_again(passing: tuple[int, str]) -> None:
    with server(lambda request: passing if len(served.asked) < 3 else widths(request)) as served:
        assert reward(served.url).score(ITEMS) == [48.0, 29.0, 32.0]
    assert len(served.asked) == 3


def test_a_server_that_stays_broken_and_one_that_is_not_there_are_given_up() -> None:
    with (
        server(lambda request: (500, "it broke")) as served,
        pytest.raises(RewardServerError, match=r"no answer from http.* in 2 attempts, last 500 'it broke'"),
    ):
        reward(served.url, num_attempts=2).score(ITEMS)
    assert len(served.asked) == 2
    with pytest.raises(RewardServerError, match=r"in 2 attempts, last ConnectError"):
        reward(served.url, num_attempts=2).score(ITEMS)


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    free = threading.Event()

    def late(request: dict[str, Any]) -> tuple[int, str]:
        free.wait(10)
        return widths(request)

    with server(late) as served:
        with pytest.raises(RewardServerError, match="ReadTimeout"):
            reward(served.url, num_attempts=1, timeout_seconds=0.1).score(ITEMS)
        free.set()


def test_one_image_that_the_server_refuses_costs_one() -> None:
    def picky(request: dict[str, Any]) -> tuple[int, str]:
        return (422, "too tall") if "key-1" in request["keys"] else widths(request)

    with server(picky) as served:
        scores = WeightedRewards([Term("far", reward(served.url))]).score(ITEMS)
    assert scores.total_N.isnan().tolist() == [False, True, False]
    assert scores.failures == [f"reward far: key-1: {served.url} answers 422 'too tall'"]
    assert [len(request["keys"]) for request in served.asked] == [3, 1, 1, 1]


def test_a_null_is_an_image_without_a_reward() -> None:
    with server(lambda request: (200, '{"rewards": [0.5, null, 1]}')) as served:
        scores = WeightedRewards([Term("far", reward(served.url))]).score(ITEMS)
    assert scores.total_N.isnan().tolist() == [False, True, False]
    assert len(served.asked) == 1


@pytest.mark.parametrize("body", ["[0.5, 0.5, 0.5]", '{"scores": [1, 2, 3]}', '{"rewards": [1, 2]}', '{"rewards": 1}'])
def test_another_answer_than_a_reward_for_each_is_an_error(body: str) -> None:
    with server(lambda request: (200, body)) as served, pytest.raises(ConfigError, match="for each of 3 images"):
        reward(served.url).score(ITEMS)


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_server_that_lets_nobody_in_ends_the_run_at_once(status: int) -> None:
    with (
        server(lambda request: (status, "not here")) as served,
        pytest.raises(ConfigError, match=f"refuses: {status} 'not here'"),
    ):
        reward(served.url).score(ITEMS)
    assert len(served.asked) == 1


def test_what_is_refused_is_an_error_of_these_images() -> None:
    with server(lambda request: (413, "too large")) as served, pytest.raises(RewardError, match="413 'too large'"):
        reward(served.url).score(ITEMS)
