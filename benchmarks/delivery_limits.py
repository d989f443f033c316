"""How much of a documented rate limit delivery uses, on a virtual clock against fixed and sliding windows."""

from __future__ import annotations

import json
import random
import tempfile
import threading
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from heap_assets.activation import SyncSpec, deliver
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_events import HeapEvents
from heap_assets.activation.engine.http_client import Transport
from heap_assets.demo.server_limits import Limit, RateLimiter
from heap_assets.storage import Store

APP, IDENTITY = Limit(15_000, 60), Limit(1000, 60)
MINUTES = 4
LATENCY = 0.3


class VirtualClock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float, woken: threading.Condition | None = None) -> None:
        del woken
        self.time += max(seconds, 0.0)


class VirtualHeap(httpx.BaseTransport):
    """Counts rows as the local server does; a call takes up to :data:`LATENCY` seconds."""

    def __init__(self, clock: VirtualClock, *, sliding: bool) -> None:
        self.clock = clock
        self.limiter = RateLimiter(sliding=sliding, clock=clock.now)
        self.accepted: list[tuple[float, int]] = []
        self.refused = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.clock.time += LATENCY * random.uniform(0.1, 0.9)
        persons = Counter(event["identity"] for event in json.loads(request.content)["events"])
        wanted = [(f"i|{who}", IDENTITY, count) for who, count in persons.items()]
        wait = self.limiter.take([*wanted, ("app", APP, persons.total())])
        self.clock.time += LATENCY * 0.1
        if wait:
            self.refused += 1
            return httpx.Response(429, content=b"{}")
        self.accepted.append((self.clock.time, persons.total()))
        return httpx.Response(200, content=b"{}")


def utilisation(*, sliding: bool) -> tuple[float, int]:
    """Return the share of the allowed rows that were accepted in the first minutes, and the number of 429."""
    clock = VirtualClock()
    server = VirtualHeap(clock, sliding=sliding)
    count = APP.amount * (MINUTES + 1)
    n = pl.int_range(count, eager=True).alias("n").to_frame().lazy()
    rows = n.select(key=pl.format("p{}", pl.col("n") % 5000), event_key=pl.format("e{}", "n"), event=pl.lit("Paid"))
    spec = SyncSpec("events", rate_share=1.0, concurrency=1)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(str(Path(folder)))
        day = date(2026, 11, 20)
        deliver(spec, HeapEvents(HeapApp("11"), source="t"), rows, store, day, "r", transport=Transport(clock, server))
    in_time = sum(rows for at, rows in server.accepted if at < MINUTES * 60)
    return in_time / (MINUTES * APP.amount), server.refused


def measure() -> dict[str, Any]:
    """Measure both kinds of window; the worse one counts."""
    found = {"fixed": utilisation(sliding=False), "sliding": utilisation(sliding=True)}
    for kind, (share, refused) in found.items():
        print(f"{kind} windows: {share:.1%} of the allowed rate, {refused} times 429")
    return {
        "limit_utilisation": round(min(share for share, _ in found.values()), 4),
        "throttled": sum(refused for _, refused in found.values()),
    }
