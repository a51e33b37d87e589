# SPDX-License-Identifier: Apache-2.0
"""Annotation by a real server of OpenAI's protocol (`transformers serve`), which is killed and started again in mid-run."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.annotation.chat_models import text_model, vision_model
from tests.data.archives import png
from tests.world import command, quiet_environment
from unigen.annotation.judges.endpoint import EndpointJudge, EndpointSettings
from unigen.annotation.judges.judge import Request

NUM_PROMPTS = 40
IS_SERVER_HERE = all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn"))


@pytest.mark.timeout(600)  # two starts of a server, on a machine that may be busy
@pytest.mark.skipif(not IS_SERVER_HERE, reason="needs `transformers serve`: bash scripts/setup.sh dev")
def test_a_server_that_dies_and_comes_back_costs_no_item_and_doubles_none(tmp_path: Path) -> None:
    model, reader = text_model(tmp_path / "text"), vision_model(tmp_path / "vision")
    prompts, output = tmp_path / "prompts.txt", tmp_path / "questions.jsonl"
    prompts.write_text("".join(f"a photo of {number} circles\n" for number in range(NUM_PROMPTS)))
    records = tmp_path / "questions.jsonl.run" / "records-0.jsonl"
    port = _free_port()
    address = f"http://127.0.0.1:{port}/v1"
    server = _serve(port, tmp_path / "first.log")
    words = ("annotate", "questions", "--prompts", prompts, "--output", output, "--model", model)
    asking = ("--base-url", address, "--max-tokens", "24", "--num-in-flight", "2", "--num-attempts", "30")
    running = subprocess.Popen(command(*words, *asking), env=quiet_environment(), stderr=subprocess.PIPE, text=True)
    try:
        _wait(lambda: records.exists() and records.read_text().count("\n") >= 3)
        _kill(server)
        num_before = records.read_text().count("\n")
        assert num_before < NUM_PROMPTS, "the server was killed in mid-run"
        server = _serve(port, tmp_path / "second.log")
        _, error = running.communicate(timeout=240)
        assert running.returncode == 0, error
        judge = EndpointJudge(EndpointSettings(str(reader), address, max_tokens=4))
        ((_, reply),) = judge.replies([(0, Request("is there a circle?", png(0)))])
        assert reply.error is None
        assert reply.text
    finally:
        _kill(server)
        running.kill()
    named = [json.loads(line)["item_id"] for line in records.read_text().splitlines()]
    assert sorted(named) == [f"{number:05d}" for number in range(NUM_PROMPTS)]
    asked = [json.loads(line)["id"] for line in output.read_text().splitlines()]
    assert sorted(set(asked)) == sorted(named)
    assert asked == sorted(asked)


def _serve(port: int, log: Path) -> "subprocess.Popen[bytes]":
    program = Path(sys.executable).with_name("transformers")
    words = [program, "serve", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        return subprocess.Popen(words, env=environment, stdout=file, stderr=file, start_new_session=True)


def _kill(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait(condition: Callable[[], bool], seconds: float = 150) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.05)
