"""A server on a socket that answers everything alike: a wrong address, a gateway, a portal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class OneAnswer:
    """What is answered to every request.

    Attributes:
        body: The body; a status of 204 has none.
        status: The HTTP status.
        content_type: What the body is said to be.
        date: The `Date` header; None is the right one.
    """

    body: str = "{}"
    status: int = 200
    content_type: str = "application/json"
    date: str | None = None


@contextmanager
def run_one_answer(answer: OneAnswer) -> Iterator[str]:
    """Start such a server on a free port; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            body = answer.body.encode() if answer.status != 204 else b""
            self.send_response(answer.status)
            if answer.status != 204:
                self.send_header("content-type", answer.content_type)
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any

        def date_time_string(self, timestamp: float | None = None) -> str:
            return answer.date if answer.date is not None else super().date_time_string(timestamp)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
