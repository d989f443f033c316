"""Rate limits, on a virtual clock: close to what is allowed, and never over it."""

from __future__ import annotations

import heapq
import json
import random
import threading
from collections import Counter

import delivery_kit as kit
import httpx
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.activation import Rate, SyncSpec, deliver
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_events import HeapEvents
from heap_assets.activation.engine.http_client import Transport
from heap_assets.activation.engine.rate_limit import Limiter, Window
from heap_assets.demo.server_limits import Limit, RateLimiter
from heap_assets.storage import Store

APP_LIMIT, IDENTITY_LIMIT = Limit(15_000, 60), Limit(1000, 60)


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
    """Counts rows as the local server does, on the same virtual clock; every call takes a while."""

    def __init__(self, clock: VirtualClock, *, sliding: bool, latency: float) -> None:
        self.clock, self.latency = clock, latency
        self.limiter = RateLimiter(sliding=sliding, clock=clock.now)
        self.accepted: list[tuple[float, int]] = []
        self.refused = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.clock.time += self.latency * random.uniform(0.1, 0.9)
        persons = Counter(event["identity"] for event in json.loads(request.content)["events"])
        wanted = [(f"i|{who}", IDENTITY_LIMIT, count) for who, count in persons.items()]
        wait = self.limiter.take([*wanted, ("app", APP_LIMIT, persons.total())])
        self.clock.time += self.latency * 0.1
        if wait:
            self.refused += 1
            return httpx.Response(429, content=b"{}")
        self.accepted.append((self.clock.time, persons.total()))
        return httpx.Response(200, content=b"{}")


def events(count: int, persons: int) -> pl.LazyFrame:
    number = pl.int_range(count, eager=True)
    return pl.LazyFrame({"n": number}).select(
        key=pl.format("p{}", pl.col("n") % persons), event_key=pl.format("e{}", "n"), event=pl.lit("Paid")
    )


@pytest.mark.parametrize("sliding", [False, True], ids=["fixed", "sliding"])
@pytest.mark.parametrize("share", [1.0, 0.9])
def test_the_app_limit_is_used_to_97_percent_without_a_429(lake: Store, sliding: bool, share: float) -> None:
    clock = VirtualClock()
    server = VirtualHeap(clock, sliding=sliding, latency=0.3)
    spec = SyncSpec("events", rate_share=share, concurrency=1)
    destination = HeapEvents(HeapApp(kit.APP), source="t")
    report = deliver(spec, destination, events(45_000, 4000), lake, kit.DAY, "r", transport=Transport(clock, server))
    assert (report.sent, server.refused, report.throttled) == (45_000, 0, 0)
    minutes = 45_000 // APP_LIMIT.amount - 1
    in_time = sum(rows for at, rows in server.accepted if at < minutes * 60)
    assert in_time >= 0.97 * minutes * APP_LIMIT.amount * share


@pytest.mark.parametrize("sliding", [False, True], ids=["fixed", "sliding"])
def test_one_busy_identity_keeps_its_own_limit_and_holds_nobody_up(lake: Store, sliding: bool) -> None:
    clock = VirtualClock()
    server = VirtualHeap(clock, sliding=sliding, latency=0.3)
    busy = events(3500, 1).with_columns(event_key=pl.format("busy-{}", "event_key"))
    rows = pl.concat([busy, events(5000, 5000).with_columns(key=pl.format("other-{}", "key"))])
    done: list[tuple[float, int]] = []
    report = deliver(
        SyncSpec("events", rate_share=1.0, concurrency=1),
        HeapEvents(HeapApp(kit.APP), source="t"),
        rows,
        lake,
        kit.DAY,
        "r",
        transport=Transport(clock, server),
        progress=lambda p: done.append((clock.time, p.acknowledged)),
    )
    assert (report.sent, server.refused) == (8500, 0)
    assert 180 <= clock.time <= 180 / 0.97 + 3
    assert max(count for at, count in done if at < 60) == 6000


@pytest.mark.parametrize("sliding", [False, True], ids=["fixed", "sliding"])
@pytest.mark.parametrize("workers", [1, 4, 16])
def test_many_workers_share_one_limit(sliding: bool, workers: int) -> None:
    """A simulation event by event: workers ask, calls arrive and are answered at odd times."""
    clock = VirtualClock()
    server = RateLimiter(sliding=sliding, clock=clock.now)
    window = Window(APP_LIMIT.amount, APP_LIMIT.seconds)
    jitter = random.Random(5)
    accepted = 0
    queue: list[tuple[float, int, str]] = [(0.0, worker, "ask") for worker in range(workers)]
    while queue and queue[0][0] < 600:
        clock.time, worker, what = heapq.heappop(queue)
        if what == "ask":
            delay = window.delay(clock.time, 1000)
            if delay is None or delay > 0:
                heapq.heappush(queue, (clock.time + (0.01 if delay is None else delay), worker, "ask"))
                continue
            window.sent(1000)
            heapq.heappush(queue, (clock.time + jitter.uniform(0.01, 0.6), worker, "arrive"))
        elif what == "arrive":
            assert server.take([("app", APP_LIMIT, 1000)]) == 0.0, "the server would have answered 429"
            accepted += 1000
            heapq.heappush(queue, (clock.time + jitter.uniform(0.01, 0.6), worker, "answered"))
        else:
            window.answered(clock.time, 1000)
            heapq.heappush(queue, (clock.time, worker, "ask"))
    assert accepted / (APP_LIMIT.amount * 10) >= 0.97


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(1, 40), st.floats(0, 3), st.floats(0, 3)), min_size=5, max_size=60),
    seconds=st.floats(0.5, 20),
)
def test_no_window_of_the_other_side_ever_overflows(steps: list[tuple[int, float, float]], seconds: float) -> None:
    allowed = 40
    window = Window(allowed, seconds)
    now = 0.0
    arrivals: list[tuple[float, int]] = []
    for units, until_arrival, until_answer in steps:
        delay = window.delay(now, units)
        assert delay is not None, "nothing is in flight"
        now += delay
        window.sent(units)
        arrivals.append((now + until_arrival, units))
        now += until_arrival + until_answer
        window.answered(now, units)
    for end, _ in arrivals:
        assert sum(units for at, units in arrivals if end - seconds < at <= end) <= allowed


def test_batches_are_cut_so_that_they_fill_the_limit() -> None:
    assert Limiter((Rate(15_000, 60),), 0.9).batch_rows(1000) == 964
    assert Limiter((Rate(15_000, 60),), 1.0).batch_rows(1000) == 1000
    assert Limiter((), 0.9).batch_rows(1000) == 1000


def test_a_stopped_run_waits_for_no_window() -> None:
    limiter = Limiter((Rate(1, 3600),), 1.0)
    with limiter.permission(1, {}):
        pass
    waiter = threading.Thread(target=lambda: limiter.permission(1, {}).__enter__())
    waiter.start()
    limiter.close()
    waiter.join(5)
    assert not waiter.is_alive()
