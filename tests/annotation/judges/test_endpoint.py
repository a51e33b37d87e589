# SPDX-License-Identifier: Apache-2.0
"""The client of OpenAI's protocol: many requests at once, retries, and keys that go nowhere but to the server."""

import base64
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.annotation.endpoint import endpoint, words_of
from unigen.annotation.judges.endpoint import MOST_FAILURES_IN_A_ROW, EndpointJudge, EndpointSettings
from unigen.annotation.judges.judge import Reply, Request
from unigen.errors import ConfigError

FAST = {"first_pause_seconds": 0.01, "longest_pause_seconds": 0.02}
KEY = "sk-very-secret-1234567890"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def judge(base_url: str | None, **settings: Any) -> EndpointJudge:
    return EndpointJudge(EndpointSettings("m", base_url, **{**FAST, **settings}))


def ask(one: EndpointJudge, count: int) -> dict[int, Reply]:
    return dict(one.replies((number, Request(f"question {number}")) for number in range(count)))


def test_every_request_gets_its_own_reply() -> None:
    with endpoint(lambda request: f"re: {words_of(request)}") as server:
        replies = ask(judge(server.base_url, max_tokens=7), 20)
    assert replies == {number: Reply(f"re: question {number}") for number in range(20)}
    assert {(request["max_tokens"], request["temperature"], request["model"]) for request in server.asked} == {
        (7, 0.0, "m")
    }


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    with endpoint(lambda request: "a dog \ud83d") as server:
        assert ask(judge(server.base_url), 1) == {0: Reply("a dog ?")}


def test_many_requests_are_in_flight_and_never_more_than_allowed() -> None:
    with endpoint(lambda request: "yes", seconds=0.05) as server:
        ask(judge(server.base_url, num_in_flight=6), 24)
    assert 4 <= server.most_at_once <= 6


def test_requests_are_taken_as_there_is_room_for_them() -> None:
    taken = []

    def requests() -> Iterator[tuple[int, Request]]:
        for number in range(100):
            taken.append(number)
            yield number, Request("q")

    with endpoint(lambda request: "yes") as server:
        replies = judge(server.base_url, num_in_flight=3).replies(requests())
        next(replies)
        assert len(taken) <= 4
        replies.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(status: int) -> None:
    tries: Counter[str] = Counter()

    def answer(request: dict[str, Any]) -> str | tuple[int, str]:
        tries[words_of(request)] += 1
        return (status, '{"error": "busy"}') if tries[words_of(request)] < 3 else "yes"

    with endpoint(answer) as server:
        replies = ask(judge(server.base_url), 4)
    assert set(replies.values()) == {Reply("yes")}
    assert set(tries.values()) == {3}


def test_a_request_that_fails_to_the_end_fails_alone() -> None:
    def answer(request: dict[str, Any]) -> str | tuple[int, str]:
        return (500, '{"error": "it broke"}') if words_of(request).endswith("1") else "yes"

    with endpoint(answer) as server:
        replies = ask(judge(server.base_url, num_attempts=2), 3)
    assert [replies[number].text for number in (0, 2)] == ["yes", "yes"]
    assert "no reply in 2 attempts" in (replies[1].error or "")


def test_a_bad_request_is_not_tried_again_and_says_why() -> None:
    with endpoint(lambda request: (400, '{"error": {"message": "prompt too long"}}')) as server:
        replies = ask(judge(server.base_url), 1)
    assert len(server.asked) == 1
    assert "prompt too long" in (replies[0].error or "")


def test_a_server_that_stays_away_is_given_up() -> None:
    replies = ask(judge("http://127.0.0.1:9/v1", num_attempts=2, num_in_flight=4), 60)
    errors = [reply.error or "" for reply in replies.values()]
    assert len(errors) == 60
    assert sum("attempts" in error for error in errors) <= MOST_FAILURES_IN_A_ROW + 4
    assert "not tried" in errors[-1]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_and_an_unknown_model_end_the_run(status: int) -> None:
    with (
        endpoint(lambda request: (status, '{"error": {"message": "not for you"}}')) as server,
        pytest.raises(ConfigError, match="not for you"),
    ):
        ask(judge(server.base_url), 5)


@pytest.mark.parametrize("body", ["no json at all", "{}", '{"choices": []}'])
def test_a_malformed_response_is_an_error_and_an_empty_message_is_not(body: str) -> None:
    with endpoint(lambda request: (200, body)) as server:
        assert ask(judge(server.base_url, num_attempts=1), 1)[0].error
    with endpoint(lambda request: "") as server:
        assert ask(judge(server.base_url), 1)[0] == Reply("")


def file(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "is_sent_as"), [("png", "image/png"), ("jpeg", "image/jpeg"), ("bmp", "image/png")])
def test_images_travel_unchanged_or_as_png_before_the_words(kind: str, is_sent_as: str) -> None:
    with endpoint(lambda request: "yes") as server:
        list(judge(server.base_url).replies([(0, Request("look", file(kind)))]))
    image, text = server.asked[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "look"}
    media_type, encoded = image["image_url"]["url"].removeprefix("data:").split(";base64,")
    assert media_type == is_sent_as
    if kind != "bmp":
        assert base64.b64decode(encoded) == file(kind)


def test_what_is_no_image_fails_alone() -> None:
    with endpoint(lambda request: "yes") as server:
        replies = dict(judge(server.base_url).replies([(0, Request("look", b"text")), (1, Request("read"))]))
    assert replies[1] == Reply("yes")
    assert "unreadable_image" in (replies[0].error or "")


def test_keys_go_to_the_server_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG", "org-also-secret")
    echo = json.dumps({"error": {"message": f"bad request by Bearer {KEY} of org-also-secret"}})
    caplog.set_level(logging.INFO)
    with endpoint(lambda request: (400, echo)) as server:
        one = judge(server.base_url)
        (reply,) = ask(one, 1).values()
    sent = {name.lower(): value for name, value in server.headers[0].items()}
    assert (sent["authorization"], sent["openai-organization"]) == (f"Bearer {KEY}", "org-also-secret")
    assert "***" in (reply.error or "")
    told = json.dumps([one.identity(), one.notes(), reply.error]) + caplog.text
    assert KEY not in told
    assert "org-also-secret" not in told


@pytest.mark.parametrize("address", ["http://me:t0ken@host/v1", "http://host/v1?key=t0ken"])
def test_a_secret_in_the_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ConfigError, match="give the address alone") as error:
        judge(address)
    assert "t0ken" not in str(error.value)


def test_the_address_comes_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with endpoint(lambda request: "yes") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert ask(judge(None), 1)[0] == Reply("yes")


def test_nobody_to_ask_is_a_mistake_with_its_remedy() -> None:
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY.*--base-url"):
        judge(None)
