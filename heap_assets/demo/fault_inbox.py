"""A real HTTP receiver for the alerts of the fault table."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Inbox:
    """The messages that arrived."""

    url: str
    messages: list[dict[str, Any]] = field(default_factory=list)

    def wrong(self) -> list[dict[str, Any]]:
        """Return the alarms of all messages, recoveries left out."""
        return [alarm for message in self.messages for alarm in message["alarms"] if not alarm["recovered"]]

    def forget(self) -> None:
        """Empty it."""
        self.messages.clear()


@contextmanager
def receiver() -> Iterator[Inbox]:
    """Run a receiver on a free port of this machine."""
    inbox = Inbox("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            inbox.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    inbox.url = f"http://127.0.0.1:{server.server_address[1]}/alerts"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield inbox
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
