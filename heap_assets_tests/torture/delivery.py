"""A sync of some hundred people to a local Heap server, as a stage that can be stopped anywhere and begun again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.activation import Log, Retry, SyncSpec, deliver, fold
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_user_properties import HeapUserProperties
from heap_assets.demo.server_process import ServerProcess
from heap_assets.storage import Store
from heap_assets_tests.torture.stages import DAYS
from heap_assets_tests.torture.trials import Base
from heap_assets_tests.torture.zygote import SERVER_VARIABLE, Outcome, Zygote

APP = "11"
_PEOPLE, _BATCH = 200, 40


def send(folder: Path) -> None:
    """Send everybody to the server that the environment names."""
    store = Store(str(folder / "lake"))
    rows = pl.LazyFrame({"key": [f"u{n}@x.example" for n in range(_PEOPLE)], "plan": ["pro"] * _PEOPLE})
    patience = Retry(attempts=3, first_wait=0.01, longest_wait=0.05, timeout=5)
    spec = SyncSpec("users", {"Plan": "plan"}, retry=patience, concurrency=2, rate_share=1.0)
    app = HeapApp(APP, base_url=os.environ[SERVER_VARIABLE])
    destination = HeapUserProperties(app, batch_rows=_BATCH)
    report = deliver(spec, destination, rows, store, DAYS[-1], "run", confirmed=True)
    if str(report.status) != "succeeded":
        raise RuntimeError(f"the sync {report.status}")


def settle(folder: Path) -> dict[str, Any]:
    """Send again until all is acknowledged, and say what the ledger holds."""
    send(folder)
    log = Log(Store(str(folder / "lake")), "users")
    ledger = log.ledger().frame
    return {
        "keys": sorted(ledger["key"]),
        "statuses": sorted(set(ledger["status"])),
        "ledger is the log": fold(log).frame.equals(ledger),
    }


def delivery_base(zygote: Zygote, folder: Path, server: ServerProcess) -> Base:
    """Send undisturbed once; the server is emptied before each trial, and what it holds is compared after it."""

    def _held() -> dict[str, Any]:
        return {identity: user["properties"] for identity, user in server.state()["users"].items()}

    base = Base(folder, reset=server.reset, observe=_held)
    base.before["delivery"] = folder / "before-delivery"
    base.before["delivery"].mkdir()
    server.configure(limits=False)
    outcome: Outcome = zygote.ask("delivery", folder / "undisturbed")
    assert outcome.ended == "finished", outcome
    base.calls["delivery"], base.seconds["delivery"] = outcome.calls, outcome.seconds
    settled = zygote.ask("settle", folder / "undisturbed", stage="delivery")
    assert settled.ended == "finished", settled
    base.after["delivery"] = {**settled.said, "elsewhere": _held()}
    return base
