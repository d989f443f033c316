"""Exchanges of several steps: jobs that are polled, look-ups, and what is left of them when a run is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import delivery_kit as kit
import jobs_kit
import polars as pl
import pytest
from scripted_server import Call, Say, Scripted, scripted

from heap_assets.activation import (
    BaseDestination,
    Dedupe,
    Exchange,
    Limits,
    Mode,
    Request,
    Retry,
    Row,
    RowVerdict,
    Status,
    Verdict,
    deliver,
    forget,
)
from heap_assets.storage import Store


def pending(lake: Store) -> int:
    return len(lake.list("_sync/users/pending"))


def test_a_job_is_started_filled_run_and_asked_for_its_end(lake: Store) -> None:
    vendor = jobs_kit.Vendor()
    vendor.refused = frozenset({"u3@x.example"})
    with scripted(vendor) as server:
        report = jobs_kit.send(server.url, lake)
        assert (report.sent, report.rejected, report.rejections) == (19, 1, {"••• is refused": 1})
        again = jobs_kit.send(server.url, lake)
    assert (again.planned, again.rejected) == (1, 1)
    assert Counter(vendor.applied) == Counter({key: 1 for key in jobs_kit.rows(20)["key"] if key not in vendor.refused})
    assert len(vendor.tokens) == 1
    assert pending(lake) == 0
    assert kit.ledger(lake).filter(pl.col("key") == "u0@x.example")["remote_id"].item() == "id-u0@x.example"
    kit.assert_ledger_is_the_log(lake)


def test_a_job_that_takes_too_long_is_left_to_the_next_run_and_its_rows_are_held(lake: Store) -> None:
    vendor = jobs_kit.Vendor(polls=10**6)
    hasty = Retry(attempts=4, first_wait=0.02, longest_wait=0.1, timeout=2.0, patience=0.05)
    with scripted(vendor) as server:
        report = jobs_kit.send(server.url, lake, retry=hasty)
        assert (report.status, report.unknown, pending(lake)) == (Status.PARTIAL, 20, 2)
        waits = jobs_kit.send(server.url, lake, count=25, retry=hasty)
        assert (waits.held, waits.planned) == (20, 5)
        assert waits.held_reasons == {"the destination is still working on it": 20}
        vendor.polls = 0
        done = jobs_kit.send(server.url, lake, count=25)
    assert (done.status, done.resumed, done.planned, pending(lake)) == (Status.SUCCEEDED, 25, 0, 0)
    assert set(Counter(vendor.applied).values()) == {1}
    assert len(vendor.applied) == 25
    kit.assert_ledger_is_the_log(lake)


def test_a_forgotten_person_is_in_no_pending_job(lake: Store) -> None:
    vendor = jobs_kit.Vendor(polls=10**6)
    hasty = Retry(attempts=4, first_wait=0.02, longest_wait=0.1, timeout=2.0, patience=0.02)
    with scripted(vendor) as server:
        jobs_kit.send(server.url, lake, retry=hasty)
        forget(lake, kit.spec(), "u3@x.example", "by hand")
        folder = Path(lake.uri("_sync/users").removeprefix("file://"))
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert any(file.parent.name == "pending" for file in files)
        assert not any("u3@x.example" in str(pl.read_parquet(f).rows()) for f in files if f.suffix == ".parquet")
        vendor.polls = 0
        done = jobs_kit.send(server.url, lake)
    assert (done.resumed, done.held_reasons) == (19, {"forgotten": 1})
    assert "u3@x.example" not in kit.ledger(lake)["key"]


class _Senders:
    """A process that forks senders, each of which the server can kill."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = 0

    def send(self, mode: Mode, dedupe: str) -> bool:
        """Run one sender; whether it lived to its end."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{mode} {dedupe}\n")
        self.process.stdin.flush()
        lived = False
        for line in self.process.stdout:
            word, *rest = line.split()
            if word == "pid":
                self.pid = int(rest[0])
            lived = lived or word == "status"
            if word == "end":
                break
        return lived


@contextmanager
def senders(url: str, lake: Path) -> Iterator[_Senders]:
    environment = {**os.environ, "POLARS_ALLOW_FORKING_THREAD": "1"}
    command = [sys.executable, jobs_kit.__file__, url, str(lake)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield _Senders(process)
        assert process.stdin
        process.stdin.close()
        process.wait(timeout=60)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("mode", "dedupe"), [(Mode.UPSERT, "natural"), (Mode.INSERT, "none")], ids=["upsert", "events-once"]
)
def test_killed_at_every_call_of_a_job_nothing_is_lost_and_a_run_job_is_not_run_again(
    tmp_path: Path, mode: Mode, dedupe: str, when: str
) -> None:
    vendor = jobs_kit.Vendor(polls=1)
    everybody = set(jobs_kit.rows(20)["key"])
    with scripted(lambda call: vendor(call)) as server, senders(server.url, tmp_path / "lake") as sender:
        lake = kit.store(tmp_path)
        assert sender.send(mode, dedupe)
        whole = len(server.calls)
        for number in range(1, whole + 1):
            vendor.__init__(polls=1)  # type: ignore[misc]
            server.calls.clear()
            for info in lake.list("_sync/users"):
                lake.delete(info.key)
            server.kill = (number, when, lambda: sender.pid)
            assert not sender.send(mode, dedupe), f"the run was not killed at call {number}"
            server.kill = None
            assert sender.send(mode, dedupe)
            applied = Counter(vendor.applied)
            ran_unknown = when == "after" and server.calls[number - 1].path.endswith("/run")
            told = kit.ledger(lake)
            lost = set(told.filter(pl.col("status") == "unknown")["key"])
            assert everybody == set(applied) | lost, f"killed {when} call {number}"
            assert max(applied.values()) == 1, f"killed {when} call {number}: {applied}"
            assert len(lost) <= (10 if dedupe == "none" else 0)
            assert not (ran_unknown and lost), "what ran is asked for, though its end was not remembered"
            assert pending(lake) == 0
            kit.assert_ledger_is_the_log(lake)


class LookUp(BaseDestination):
    """Finds a record's id first, then writes by id: update only."""

    kind = "lookup"
    limits = Limits(batch_rows=1)

    def __init__(self, url: str) -> None:
        self.url = url

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(f"{self.url}/people/{rows[0].remote_id}", elements[0], "PATCH", reads=frozenset({404}))

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        [row] = rows
        if row.remote_id is not None:
            updated = yield self.request(elements, rows)
            if updated.status != 404:
                return self.verdict(updated, rows)
        found = yield Request(f"{self.url}/search?key={row.key}", method="GET")
        hits = found.json["hits"]
        if len(hits) != 1:
            return Verdict({0: RowVerdict("invalid", f"{len(hits)} have this key") if hits else RowVerdict("no_match")})
        row.remote_id = hits[0]
        updated = yield self.request(elements, rows)
        return Verdict({0: RowVerdict("acknowledged", remote_id=row.remote_id)}) if updated.accepted else Verdict()


class People:
    """Records by id, found by key."""

    def __init__(self, hits: dict[str, list[str]]) -> None:
        self.hits = hits
        self.written: dict[str, Any] = {}

    def __call__(self, call: Call) -> Say:
        if call.path == "/search":
            return Say(200, {"hits": self.hits.get(call.query["key"], [])})
        number = call.path.rsplit("/", 1)[-1]
        if not any(number in ids for ids in self.hits.values()):
            return Say(404, {})
        self.written[number] = call.json["properties"]
        return Say(200, {})


def look_up(server: Scripted, lake: Store, rows: pl.DataFrame) -> Any:
    return deliver(kit.spec(), LookUp(server.url), rows.lazy(), lake, kit.DAY, "r", confirmed=True)


def test_a_record_is_looked_up_once_and_never_made(lake: Store) -> None:
    people = People({"u0@x.example": ["7"], "u1@x.example": ["8", "9"]})
    with scripted(people) as server:
        report = look_up(server, lake, kit.people(3))
        assert (report.sent, report.no_match, report.invalid) == (1, 1, 1)
        assert people.written == {"7": {"Plan": "pro", "Seats": 0}}
        before = len(server.asked("GET", "/search"))
        assert look_up(server, lake, kit.people(3, plan="team")).sent == 1
        assert len(server.asked("GET", "/search")) == before + 2  # not for the one whose id is known
        people.hits["u0@x.example"] = ["70"]  # merged there: the id that we know is gone
        assert look_up(server, lake, kit.people(3, plan="free")).sent == 1
        assert people.written["70"] == {"Plan": "free", "Seats": 0}
    assert kit.ledger(lake).filter(pl.col("key") == "u0@x.example")["remote_id"].item() == "70"


def test_a_lost_look_up_is_repeated_whatever_the_contract(lake: Store) -> None:
    people, lost = People({"u0@x.example": ["7"]}), []

    def answer(call: Call) -> Say:
        if call.method == "GET" and not lost:
            lost.append(call)
            return Say(hang_up=True)
        return people(call)

    class Once(LookUp):
        dedupe = Dedupe("none")

    with scripted(answer) as server:
        report = deliver(kit.spec(), Once(server.url), kit.people(1).lazy(), lake, kit.DAY, "r")
    assert (report.sent, report.retried) == (1, 1)
