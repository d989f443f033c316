"""The checks of the inbox and of live syncs over a sound week, and over a fault planted for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from heap_assets import clock
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.inbox import (
    checks_for_folded_table,
    checks_for_message_table,
    coming_check,
    followed_check,
)
from heap_assets.sources.inbox import LIVE, write_status
from heap_assets.storage import Lake

TRACK, USERS, SYNC = "inbox/track", "inbox/users", "sync/crm"
NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
TODAY = NOW.date()
CHECKS = [
    *checks_for_message_table(TRACK, key="message_id"),
    *checks_for_folded_table(USERS, key="id"),
    coming_check(TRACK),
    followed_check(SYNC, LIVE),
]
CHECKS = [check for check in CHECKS if check.evaluate is not None]  # `readable` is what building a day comes to
Fault = Callable[[Lake], None]


def messages(day: date, hours: range = range(24)) -> pl.DataFrame:
    """Ten messages an hour."""
    begin = datetime.combine(day, datetime.min.time(), UTC)
    times = [begin + timedelta(hours=hour, minutes=6 * n) for hour in hours for n in range(10)]
    ids = [f"{day}-{n}" for n in range(len(times))]
    return pl.DataFrame(
        {"message_id": ids, "received_at": times}, schema={"message_id": pl.String, "received_at": _TIME}
    )


_TIME = pl.Datetime("us", "UTC")


def users(count: int = 60) -> pl.DataFrame:
    return pl.DataFrame({"id": [f"u{n}" for n in range(count)]})


def tracked(**notes: Any) -> Fault:
    return lambda lake: _write(lake, TRACK, messages(TODAY, range(13)), notes)


def _write(lake: Lake, asset: str, rows: pl.DataFrame, notes: Mapping[str, Any] | None = None) -> None:
    lake.write(asset, str(TODAY), rows, notes=dict(notes or {}))


def status(**facts: float) -> Fault:
    return lambda lake: write_status(lake.store, "a", NOW, {"queue_length": 0.0, "latency_seconds_p95": 0.4} | facts)


FAULTS: list[tuple[str, str, Fault]] = [
    (TRACK, "rejected_rows", tracked(rejected=70, rejected_by={"total": 70})),
    (TRACK, "names_declared", tracked(undeclared={"coupon": 12})),
    (TRACK, "unique_keys", lambda lake: _write(lake, TRACK, pl.concat([messages(TODAY), messages(TODAY).head(2)]))),
    (TRACK, "messages_keep_coming", lambda lake: _write(lake, TRACK, messages(TODAY, range(11)))),
    (USERS, "not_shrunk", lambda lake: _write(lake, USERS, users(20))),
    (USERS, "unique_keys", lambda lake: _write(lake, USERS, pl.concat([users(), users(1)]))),
    (SYNC, "live_follows", status(queue_length=50_000.0)),
    (SYNC, "live_follows", status(latency_seconds_p95=600.0)),
    (SYNC, "live_follows", lambda lake: write_status(lake.store, "a", NOW - timedelta(minutes=7), {})),
]


@pytest.fixture
def week(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A week of messages and users, and a service that is well."""
    monkeypatch.setenv(clock.VARIABLE, NOW.isoformat())
    lake = Lake.open(str(tmp_path / "lake"))
    for back in range(8, 0, -1):
        day = TODAY - timedelta(days=back)
        lake.write(TRACK, str(day), messages(day))
        lake.write(USERS, str(day), users())
    _write(lake, TRACK, messages(TODAY, range(13)))
    _write(lake, USERS, users())
    status()(lake)
    return lake


def judged(lake: Lake, check: Check) -> bool:
    key = str(TODAY) if check.partitioned else "all"
    return bool(check.evaluate(CheckContext(lake, check.asset, key, check.name)).passed)  # type: ignore[misc]


def test_every_check_of_the_inbox_has_a_fault_and_passes_without_one(week: Lake) -> None:
    assert {(check.asset, check.name) for check in CHECKS} == {(asset, name) for asset, name, _ in FAULTS}
    assert [check.name for check in CHECKS if not judged(week, check)] == []


@pytest.mark.parametrize(("asset", "name", "fault"), FAULTS, ids=[f"{a}-{n}-{i}" for i, (a, n, _) in enumerate(FAULTS)])
def test_every_planted_fault_is_told_by_its_check(week: Lake, asset: str, name: str, fault: Fault) -> None:
    fault(week)
    (check,) = [one for one in CHECKS if (one.asset, one.name) == (asset, name)]
    assert not judged(week, check)
