"""SIGKILL of the sender at any moment: nothing lost, at most one batch per worker sent twice, events once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import delivery_kit as kit
import polars as pl
import pytest

from heap_assets.activation.engine.hashing import hashed_values, salt
from heap_assets.demo.server_process import ServerProcess
from heap_assets.storage import Store

BATCH, WORKERS, ROWS = 25, 3, 1000
SENDER = Path(__file__).with_name("delivery_sender.py")
MANY = int(os.environ.get("DELIVERY_KILLS", "100"))


class Senders:
    """Starts senders one after another, kills them, and tells how they ended."""

    def __init__(self, lake: Store, heap: ServerProcess) -> None:
        arguments = [sys.executable, str(SENDER), lake.url, heap.base_url, str(BATCH)]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._watchdog = threading.Timer(300, self._process.kill)
        self._watchdog.start()

    def start(self, kind: str, rows: Path) -> int:
        """Start a sender; returns its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {rows}\n")
        self._process.stdin.flush()
        said = self._line()
        while not said.startswith("pid "):
            said = self._line()
        return int(said.removeprefix("pid "))

    def end(self) -> str | None:
        """Wait until the sender is gone; returns the status it reported, None if it was killed first."""
        status = None
        while (said := self._line()) != "end":
            status = said.removeprefix("status ")
        return status

    def close(self) -> None:
        assert self._process.stdin is not None
        self._watchdog.cancel()
        self._process.stdin.close()
        self._process.wait(30)

    def _line(self) -> str:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said, "the process that starts senders died"
        return said.strip()


@pytest.fixture
def senders(lake: Store, heap: ServerProcess) -> Iterator[Senders]:
    started = Senders(lake, heap)
    yield started
    started.close()


def kill_at_random_moments(
    heap: ServerProcess, senders: Senders, kind: str, versions: list[Path], kills: int, seed: int
) -> int:
    """Start and kill senders, newest rows changing under them; returns how often one was killed at work."""
    chance = random.Random(seed)
    killed = 0
    heap.fail({"kind": "slow", "seconds": 0.02})
    for turn in range(kills):
        process = senders.start(kind, versions[turn % len(versions)])
        time.sleep(chance.uniform(0.0, 0.4))
        with suppress(ProcessLookupError):  # it was quicker
            os.kill(process, signal.SIGKILL)
        killed += senders.end() is None
    heap.fail()
    return killed


def finish(senders: Senders, kind: str, rows: Path) -> str | None:
    senders.start(kind, rows)
    return senders.end()


def user_versions(folder: Path, count: int) -> list[Path]:
    paths = []
    for version in range(count):
        plan = pl.format("plan {}", (pl.col("seats") * (version + 1)) % 7)
        frame = kit.people(ROWS).with_columns(plan=plan, seats=pl.col("seats") + version)
        frame = frame.filter(pl.col("seats") % 50 != version)
        frame.write_parquet(folder / f"users-{version}.parquet")
        paths.append(folder / f"users-{version}.parquet")
    return paths


def assert_ledger_equals_server(lake: Store, heap: ServerProcess, kind: str) -> None:
    held = kit.properties(heap)
    ledger = kit.ledger(lake, kind)
    assert set(ledger["key"]) == set(held)
    secret = salt(lake)
    for name, dtype in (("Plan", pl.String), ("Seats", pl.Int64)):
        values = [held[key][name] for key in ledger["key"]]
        known = pl.Series([None if v == "(none)" else v for v in values], dtype=dtype)
        assert ledger[f"p:{name}"].to_list() == hashed_values(known, secret).fill_null(0).to_list()
    assert set(ledger["status"]) == {"acknowledged"}
    kit.assert_ledger_is_the_log(lake, kind)


def kill_users(heap: ServerProcess, lake: Store, senders: Senders, tmp_path: Path, kills: int) -> None:
    versions = user_versions(tmp_path, 4)
    killed = kill_at_random_moments(heap, senders, "users", versions, kills, seed=kills)
    assert killed >= kills * 0.5, "most kills should hit a sender at work"
    assert finish(senders, "users", versions[-1]) == "succeeded"
    held = kit.properties(heap)
    for key, plan, seats in pl.read_parquet(versions[-1]).iter_rows():
        assert held[key] == {"Plan": plan, "Seats": seats}
    assert_ledger_equals_server(lake, heap, "users")
    before = kit.requests(heap)
    assert finish(senders, "users", versions[-1]) == "succeeded"
    assert kit.requests(heap) == before, "an unchanged second run makes no call"


def event_file(folder: Path) -> Path:
    number = pl.col("seats")
    frame = kit.people(ROWS).with_columns(event_key=pl.format("order-{}", number), event=pl.lit("Paid"))
    frame.write_parquet(folder / "events.parquet")
    return folder / "events.parquet"


def kill_events(heap: ServerProcess, senders: Senders, tmp_path: Path, kills: int) -> None:
    heap.configure(limits=False)
    rows = event_file(tmp_path)
    killed = kill_at_random_moments(heap, senders, "events", [rows], kills, seed=kills + 1)
    assert finish(senders, "events", rows) == "succeeded"
    state = heap.state()
    assert len(state["events"]) == ROWS
    assert {e["identity"] for e in state["events"].values()} == set(kit.people(ROWS)["key"])
    resent = state["summary"].get("repeated_keys", 0)
    assert resent <= killed * WORKERS * BATCH
    before = kit.requests(heap)
    assert finish(senders, "events", rows) == "succeeded"
    assert kit.requests(heap) == before


def test_twelve_kills_of_a_user_sync(heap: ServerProcess, lake: Store, senders: Senders, tmp_path: Path) -> None:
    kill_users(heap, lake, senders, tmp_path, 12)


def test_eight_kills_of_an_event_sync(heap: ServerProcess, senders: Senders, tmp_path: Path) -> None:
    kill_events(heap, senders, tmp_path, 8)


@pytest.mark.slow
def test_a_hundred_kills_leave_the_ledger_equal_to_the_server(
    heap: ServerProcess, lake: Store, senders: Senders, tmp_path: Path
) -> None:
    kill_users(heap, lake, senders, tmp_path, MANY)


def test_one_kill_sends_at_most_one_batch_per_worker_twice(
    heap: ServerProcess, senders: Senders, tmp_path: Path
) -> None:
    heap.configure(limits=False)
    rows = event_file(tmp_path)
    heap.fail({"kind": "slow", "seconds": 0.03})
    process = senders.start("events", rows)
    deadline = time.monotonic() + 30
    while kit.requests(heap) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    assert senders.end() is None
    heap.fail()
    assert finish(senders, "events", rows) == "succeeded"
    state = heap.state()
    assert len(state["events"]) == ROWS
    assert state["summary"].get("repeated_keys", 0) <= WORKERS * BATCH
