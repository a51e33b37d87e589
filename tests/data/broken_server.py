# SPDX-License-Identifier: Apache-2.0
"""A web server whose answers break off."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def broken_server(content: bytes, num_bytes: int) -> Iterator[str]:
    """The address of a server that sends `num_bytes` of `content` and hangs up: under `/chunked/` in pieces that announce
    their own length, else with the length of all of it."""

    class Broken(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            is_chunked = self.path.startswith("/chunked/")
            self.send_response(200)
            self.send_header(*(("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", len(content))))
            self.end_headers()
            sent = content[:num_bytes]
            self.wfile.write(b"%x\r\n%b\r\nffff\r\n" % (num_bytes, sent) if is_chunked else sent)
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
