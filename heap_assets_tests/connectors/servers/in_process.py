"""A stand-in server without a socket, on a virtual clock: what hours of calls would do takes moments."""

from __future__ import annotations

import threading
from typing import Any

import httpx

from heap_assets_tests.connectors.servers.core import VendorServer

LATENCY = 0.001
"""Seconds that a call takes: half until it is there, half until its answer is."""


class VirtualClock:
    """Time that passes only when somebody waits, or a call is on its way. `begun`: its first moment (epoch)."""

    def __init__(self, begun: float) -> None:
        self.begun, self.passed = begun, 0.0

    def now(self) -> float:
        return self.passed

    def wait(self, seconds: float, woken: threading.Condition | None = None) -> None:
        del woken
        self.passed += max(seconds, 0.0)

    def epoch(self) -> float:
        """Return the time as a vendor has it."""
        return self.begun + self.passed


class Wire(httpx.BaseTransport):
    """Hands calls to a server; `admitted`: when each was that was not refused, with what it took of each limit."""

    def __init__(self, server: VendorServer, clock: VirtualClock) -> None:
        self._server, self._clock = server, clock
        server.clock, server.url = clock.epoch, "http://127.0.0.1:9"
        self._router = server._router()
        self.admitted: list[tuple[float, dict[str, float]]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._clock.passed += LATENCY / 2
        body, sent = request.read(), list[dict[str, Any]]()
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "raw_path": request.url.raw_path,
            "root_path": "",
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "transport": None,
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        before, seen = (
            {limit.name: limit.left(self._clock.epoch()) for limit in self._server.limits},
            self._clock.passed,
        )
        answering = self._router(scope, receive, send)
        try:
            answering.send(None)
        except StopIteration:
            left = {limit.name: limit.left(self._clock.epoch()) for limit in self._server.limits}
            self.admitted.append((seen, {name: before[name] - left[name] for name in left}))
            self._clock.passed += LATENCY / 2
            return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=sent[1]["body"])
        raise AssertionError("a stand-in server waits for something")

    def used(self, name: str, seconds: float) -> float:
        """Return what calls of the first seconds took of a limit."""
        until = self.admitted[0][0] + seconds
        return sum(taken[name] for at, taken in self.admitted if at < until)
