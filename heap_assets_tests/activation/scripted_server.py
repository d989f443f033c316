"""A server whose answers a test writes: what it is asked is a call, what it says is a function of it."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Call:
    """One request. `path` is without its query."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass(frozen=True)
class Say:
    """An answer; `hang_up`: none comes although the call was carried out."""

    status: int = 200
    document: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    hang_up: bool = False


class Scripted(ThreadingHTTPServer):
    """`answer` says what every call gets; calls are kept in `calls`, one at a time.

    `kill`: process that is killed at the call of this number: before the server does anything, or after it did.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[Call], Say]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.calls: list[Call] = []
        self.lock = threading.Lock()
        self.kill: tuple[int, str, Callable[[], int]] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, method: str, path: str) -> list[Call]:
        """Return the calls of a method whose path begins so."""
        return [call for call in self.calls if call.method == method and call.path.startswith(path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def _take(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = Call(self.command, parts.path, query, headers, body)
        with self.server.lock:
            self.server.calls.append(call)
            number = len(self.server.calls)
            kill = self.server.kill
            if kill is not None and kill[:2] == (number, "before"):
                os.kill(kill[2](), signal.SIGKILL)
                self.close_connection = True
                return
            said = self.server.answer(call)
            if kill is not None and kill[:2] == (number, "after"):
                os.kill(kill[2](), signal.SIGKILL)
                said = Say(hang_up=True)
        if said.hang_up:
            self.close_connection = True
            return
        data = said.document if isinstance(said.document, bytes) else json.dumps(said.document).encode()
        data = b"" if said.document is None else data
        self.send_response(said.status)
        for name, value in {"Content-Length": str(len(data)), **said.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _take

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted(answer: Callable[[Call], Say]) -> Iterator[Scripted]:
    """Serve as long as the block runs."""
    server = Scripted(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
