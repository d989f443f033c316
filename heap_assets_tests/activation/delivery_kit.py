"""Small builders shared by the delivery tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.activation import Log, Retry, SyncReport, SyncSpec, deliver, fold
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_user_properties import HeapUserProperties
from heap_assets.demo.server_process import ServerProcess
from heap_assets.storage import Store

DAY = date(2026, 11, 20)
APP = "11"
QUICK = Retry(attempts=4, first_wait=0.02, longest_wait=0.1, timeout=2.0, throttled_for=5.0)


def store(folder: Path) -> Store:
    return Store(str(folder / "lake"))


def spec(**choices: Any) -> SyncSpec:
    choices = {"properties": {"Plan": "plan", "Seats": "seats"}, "retry": QUICK, **choices}
    return SyncSpec(choices.pop("name", "users"), **choices)


def people(count: int, *, plan: str = "pro") -> pl.DataFrame:
    return pl.DataFrame(
        {"key": [f"u{n}@x.example" for n in range(count)], "plan": [plan] * count, "seats": list(range(count))},
        schema={"key": pl.String, "plan": pl.String, "seats": pl.Int64},
    )


def users(server: ServerProcess, **choices: Any) -> HeapUserProperties:
    return HeapUserProperties(HeapApp(APP, base_url=server.base_url), **choices)


def send(
    server: ServerProcess, lake: Store, rows: pl.DataFrame, run: str = "run", day: date = DAY, **choices: Any
) -> SyncReport:
    batch_rows = choices.pop("batch_rows", 1000)
    options = {k: choices.pop(k) for k in ("confirmed", "force", "progress", "blocked_by", "transport") if k in choices}
    return deliver(spec(**choices), users(server, batch_rows=batch_rows), rows.lazy(), lake, day, run, **options)


def properties(server: ServerProcess) -> dict[str, Mapping[str, Any]]:
    """What Heap holds: identity to properties."""
    return {identity: user["properties"] for identity, user in server.state()["users"].items()}


def requests(server: ServerProcess) -> int:
    return int(server.requests()["count"])


def ledger(lake: Store, name: str = "users") -> pl.DataFrame:
    return Log(lake, name).ledger().frame


def assert_ledger_is_the_log(lake: Store, name: str = "users") -> None:
    log = Log(lake, name)
    assert fold(log).frame.equals(log.ledger().frame)


def later(days: int) -> date:
    return DAY + timedelta(days=days)
