"""Limits of an account: daily quotas over processes, calls at once, hints in headers, rates of a kind of call."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import delivery_kit as kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import Call, Say, scripted

from heap_assets import clock
from heap_assets.activation import BaseDestination, Hint, Limits, Quota, Rate, Request, Row, Status, SyncReport, deliver
from heap_assets.activation.engine import rate_limit
from heap_assets.activation.engine.quota import Quotas, QuotaUsedUpError
from heap_assets.activation.engine.rate_limit import Limiter, Window
from heap_assets.storage import Store


class Limited(BaseDestination):
    kind = "limited"

    def __init__(self, url: str, limits: Limits) -> None:
        self.url, self.limits = url, limits

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(f"{self.url}/rows", b"[" + b",".join(elements) + b"]")


def send(url: str, lake: Store, limits: Limits, count: int = 40, name: str = "users", **choices: object) -> SyncReport:
    spec = kit.spec(name=name, rate_share=1.0, **choices)
    return deliver(spec, Limited(url, limits), kit.people(count).lazy(), lake, kit.DAY, "r", confirmed=True)


def test_syncs_of_one_account_draw_from_one_daily_quota(lake: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clock.VARIABLE, "2026-11-20T23:30:00-06:00")
    limits = Limits(batch_rows=1, quotas=(Quota(50, "America/Chicago"),), shared_by="acme")
    with scripted(lambda _: Say(200, {})) as server:
        assert send(server.url, lake, limits, 30, "one").sent == 30
        second = send(server.url, lake, limits, 30, "two")
        assert (second.status, second.sent, second.aborted) == (Status.STOPPED, 20, 10)
        assert "2026-11-21 00:00 America/Chicago" in str(second.reason)
        assert len(server.calls) == 50
        monkeypatch.setenv(clock.VARIABLE, "2026-11-21T00:00:01-06:00")
        assert send(server.url, lake, limits, 30, "two").sent == 10
    assert len(lake.list("_quotas")) == 1


@settings(max_examples=20, deadline=None)
@given(allowed=st.integers(1, 400), runs=st.lists(st.integers(0, 120), min_size=1, max_size=5))
def test_no_run_and_no_number_of_them_takes_more_than_the_day_allows(
    tmp_path_factory: pytest.TempPathFactory, allowed: int, runs: list[int]
) -> None:
    store = kit.store(tmp_path_factory.mktemp("lake"))
    limits = Limits(quotas=(Quota(allowed),))

    def take(wanted: int) -> int:
        quotas, taken = Quotas(store, "acme", limits, 1.0), 0
        try:
            while taken < wanted:
                quotas.take(1)
                taken += 1
        except QuotaUsedUpError:
            pass
        quotas.close()
        return taken

    with ThreadPoolExecutor(len(runs)) as pool:
        taken = sum(pool.map(take, runs))
    assert taken <= allowed
    rest = take(allowed)
    assert taken + rest == allowed  # nothing is lost where nobody is killed


def test_no_more_calls_are_in_flight_than_the_account_allows(tmp_path: Path) -> None:
    """Two syncs of one account in one process."""
    flying, most = 0, 0
    lock = threading.Lock()

    def answer(call: Call) -> Say:
        nonlocal flying, most
        del call
        with lock:
            flying += 1
            most = max(most, flying)
        time.sleep(0.01)
        with lock:  # before the answer is written: the next call may be here sooner than this thread goes on
            flying -= 1
        return Say(200, {})

    limits = Limits(batch_rows=1, in_flight=2, shared_by=f"acme {tmp_path}")
    with scripted(answer) as server, ThreadPoolExecutor(2) as pool:
        lakes = [kit.store(tmp_path / name) for name in ("a", "b")]
        reports = list(pool.map(lambda lake: send(server.url, lake, limits, 15, concurrency=4), lakes))
    assert [report.sent for report in reports] == [15, 15]
    assert most <= 2


def test_a_header_that_says_that_no_calls_are_left_pauses_everybody(lake: Store) -> None:
    left = iter(["2", "1", "0", "2", "1", "0", "5"])

    def answer(call: Call) -> Say:
        del call
        return Say(200, {}, {"X-Left": next(left, "5"), "X-Reset": "300"})

    limits = Limits(batch_rows=10, hints=(Hint("X-Left", "X-Reset", "ms"),))
    with scripted(answer) as server:
        begun = time.monotonic()
        assert send(server.url, lake, limits, 70, concurrency=1).sent == 70
        assert time.monotonic() - begun >= 0.6


def test_hints_read_each_unit_and_ignore_what_they_cannot_read() -> None:
    def wait(unit: str, reset: str) -> float | None:
        return Hint("L", "R", unit).seconds_without_calls({"l": "0", "r": reset}, 1000.0)  # type: ignore[arg-type]

    assert [wait("seconds", "7"), wait("ms", "7000"), wait("epoch", "1007")] == [7.0, 7.0, 7.0]
    assert wait("seconds", "soon") is None
    assert Hint("L", "R").seconds_without_calls({"l": "1", "r": "7"}, 0.0) is None


def test_a_rate_with_a_label_counts_only_its_calls_and_bytes_have_a_rate_of_their_own() -> None:
    class Clock:
        time = 0.0

        def now(self) -> float:
            return self.time

        def wait(self, seconds: float, woken: threading.Condition | None = None) -> None:
            self.time += seconds

    ticks = Clock()
    rates = (Rate(1, 10, per_call=True, label="search"), Rate(100, 60, per_byte=True))
    limiter = Limiter(rates, 1.0, ticks)
    for _ in range(5):
        with limiter.permission(1, {}, 10):
            pass
    assert ticks.time == 0.0
    for _ in range(3):
        with limiter.permission(1, {}, 10, "search"):
            pass
    assert 20 <= ticks.time < 21
    with limiter.permission(1, {}, 100):
        pass
    assert ticks.time >= 60


def test_a_run_of_another_process_counts_what_the_last_one_sent(lake: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = (Rate(20, 1.5, per_call=True), Rate(1000, 3600.0, label="search"))
    limits = Limits(batch_rows=1, rates=rates, shared_by="acme")
    at: list[float] = []

    def answer(call: Call) -> Say:
        at.append(time.monotonic())
        return Say(200, {})

    with scripted(answer) as server:
        assert send(server.url, lake, limits, 20, "one").sent == 20
        monkeypatch.setattr(rate_limit, "_accounts", {})  # as another process begins
        assert send(server.url, lake, limits, 10, "two").sent == 10
        assert all(later - earlier >= 1.5 for earlier, later in zip(at, at[20:], strict=False))
        (kept,) = [info.key for info in lake.list("_quotas")]
        lake.write(kept, b'{"at": "damaged"')
        monkeypatch.setattr(rate_limit, "_accounts", {})
        assert send(server.url, lake, limits, 10, "three").sent == 10


@given(
    used=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), max_size=30),
    later=st.floats(0, 10),
)
def test_what_is_handed_on_counts_no_less_and_a_twentieth_longer_at_most(
    used: list[tuple[float, int]], later: float
) -> None:
    window, other = Window(10**6, 10.0), Window(10**6, 10.0)
    for at, units in sorted(used):
        window.sent(units)
        window.answered(at, units)
    other.count(100.0, window.counted(10.0))

    def left(one: Window, now: float) -> int:
        one.delay(now, 0)
        return one._sum

    assert left(other, 100.0 + later) >= left(window, 10.0 + later)
    assert left(other, 100.0 + later + 0.51) <= left(window, 10.0 + later)
