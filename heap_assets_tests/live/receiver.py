"""A receiver of webhooks that remembers the properties of each key, and answers as it is ordered to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What arrived."""

    url: str
    state: dict[str, dict[str, Any]] = field(default_factory=dict)
    arrivals: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    status: int = 200
    delay: float = 0.0
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    held: threading.Event | None = None
    """Answers wait for it."""

    def restart(self, state: dict[str, dict[str, Any]]) -> None:
        """Forget what arrived, and begin with this state."""
        with self.lock:
            self.state, self.arrivals, self.calls = {key: dict(row) for key, row in state.items()}, [], 0
            self.status, self.delay = 200, 0.0

    def take(self, body: bytes) -> int:
        time.sleep(self.delay)
        if self.held is not None:
            self.held.wait()
        with self.lock:
            self.calls += 1
            if self.status != 200:
                return self.status
            for row in json.loads(body)["rows"]:
                self.state.setdefault(row["key"], {}).update(row["properties"])
                self.arrivals.append((time.monotonic(), row["key"], row["properties"]))
        return 200


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver for a block."""
    receiver = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status = receiver.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
