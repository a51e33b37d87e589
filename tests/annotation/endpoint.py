# SPDX-License-Identifier: Apache-2.0
"""A server of OpenAI's chat completions on loopback, in this process, that replies as a test wants."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Endpoint:
    """What the server was asked, and the most requests that it had at once."""

    base_url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    now: int = 0

    def texts(self) -> list[str]:
        """The words of every request, in order of arrival."""
        return [words_of(request) for request in self.asked]


def words_of(request: dict[str, Any]) -> str:
    """The text of a request's message."""
    content = request["messages"][0]["content"]
    return content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")


Answer = Callable[[dict[str, Any]], str | tuple[int, str]]


@contextmanager
def endpoint(answer: Answer, *, seconds: float = 0.0) -> Iterator[Endpoint]:
    """Serve until the end of the block. `answer` gives the reply to a request, or a status and the body of the response."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                served.asked.append(request)
                served.headers.append(dict(self.headers))
                served.now += 1
                served.most_at_once = max(served.most_at_once, served.now)
            time.sleep(seconds)
            found = answer(request)
            with lock:
                served.now -= 1
            status, body = found if isinstance(found, tuple) else (200, _completion(found))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that was killed leaves a broken connection, which is no news."""
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    served = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


def _completion(text: str) -> str:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})
