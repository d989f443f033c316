"""What people ask of a sync between runs; and that the ledger is the fold of the log however it is cut."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import delivery_kit as kit
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.activation import Log, changelog, fold, forget, full_resend, rejected, retry_rejected, runs
from heap_assets.activation.engine.log import INTENT_SCHEMA, OUTCOME_SCHEMA
from heap_assets.demo.server_process import ServerProcess
from heap_assets.storage import Store


def test_a_full_resend_is_resumed_where_it_was_stopped(heap: ServerProcess, lake: Store) -> None:
    kit.send(heap, lake, kit.people(100))
    assert full_resend(lake, kit.spec(), "operator") == 100
    heap.fail({"status": 403, "skip": 3})
    stopped = kit.send(heap, lake, kit.people(100), batch_rows=10, concurrency=1)
    assert (stopped.sent, stopped.full_resend_reason) == (30, "a full resend was asked for: 100 keys are sent again")
    heap.fail()
    rest = kit.send(heap, lake, kit.people(100), batch_rows=10)
    assert (rest.sent, rest.unchanged) == (70, 30)
    assert kit.send(heap, lake, kit.people(100)).requests == 0
    kit.assert_ledger_is_the_log(lake)


def test_rejected_rows_since_a_time(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"kind": "refuse_rows", "match": "^u[12]@", "status": 400})
    kit.send(heap, lake, kit.people(5))
    assert len(rejected(lake, kit.spec())) == 2
    assert retry_rejected(lake, kit.spec(), "op", since=datetime.now(UTC) + timedelta(hours=1)) == 0
    assert retry_rejected(lake, kit.spec(), "op", since=datetime.now(UTC) - timedelta(hours=1)) == 2


def test_a_forgotten_key_leaves_no_trace_and_is_never_sent_again(heap: ServerProcess, lake: Store) -> None:
    kit.send(heap, lake, kit.people(5), run="before")
    heap.reset()
    assert forget(lake, kit.spec(), "u3@x.example", "gdpr")
    assert not forget(lake, kit.spec(), "stranger@x.example", "gdpr")
    report = kit.send(heap, lake, kit.people(5), run="after")
    assert (report.requests, report.held_reasons) == (0, {"forgotten": 1})
    assert kit.ledger(lake)["key"].to_list() == [f"u{n}@x.example" for n in (0, 1, 2, 4)]
    for info in lake.list("_sync"):
        if info.key.endswith(".parquet"):
            frame = pl.read_parquet(lake.uri(info.key))
            assert not any("u3@" in str(value) for value in frame.rows())
    assert len(changelog(lake, "users")) == 4
    kit.assert_ledger_is_the_log(lake)


def test_a_compacted_log_folds_to_the_same_ledger(heap: ServerProcess, lake: Store) -> None:
    for number in range(6):
        rows = kit.people(60).with_columns(plan=pl.format("plan {}", pl.col("seats") + number))
        kit.send(heap, lake, rows, batch_rows=10, compact_after=15, run=f"r{number}")
        kit.assert_ledger_is_the_log(lake)
    names = [info.key.rsplit("/", 1)[-1] for info in lake.list("_sync/users/log")]
    assert sum("base" in name for name in names) == 1
    assert len(names) <= 30


def test_a_run_that_dies_while_compacting_changes_nothing(heap: ServerProcess, lake: Store) -> None:
    """The new base is there, the ledger is still the old one, and no segment was removed yet."""
    kit.send(heap, lake, kit.people(30), batch_rows=10)
    old_ledger = lake.read("_sync/users/ledger.parquet")
    before = {info.key: lake.read(info.key) for info in lake.list("_sync/users/log")}
    Log(lake, "users", 9).save(fold(Log(lake, "users")), compact_after=0)
    lake.write("_sync/users/ledger.parquet", old_ledger)
    for key, data in before.items():
        lake.write(key, data)
    kit.assert_ledger_is_the_log(lake)
    assert kit.send(heap, lake, kit.people(30)).requests == 0


def test_a_killed_run_is_called_killed(heap: ServerProcess, lake: Store) -> None:
    kit.send(heap, lake, kit.people(3), run="dead")
    (info,) = lake.list("_sync/users/runs")
    lake.sink(info.key, pl.read_parquet(lake.uri(info.key)).with_columns(status=pl.lit("running")))
    lease = lake.list("_sync/users/lease")[-1].key
    text = lake.read(lease).replace(b'"released": true', b'"released": false').replace(b'"pid": ', b'"pid": 99999')
    lake.write(lease, text)
    kit.send(heap, lake, kit.people(3), run="next")
    assert dict(runs(lake, "users").select("run_id", "status").iter_rows()) == {"dead": "killed", "next": "succeeded"}


KEYS = st.sampled_from(["ann", "bob", "cat"])
STATUS = st.sampled_from(["acknowledged", "rejected", "aborted", "unknown", "lost"])
VALUE = st.one_of(st.none(), st.integers(0, 5))
ENTRY = st.tuples(KEYS, STATUS, VALUE, VALUE, st.integers(1, 3))


def append(log: Log, entries: list[tuple[str, str, int | None, int | None, int]]) -> None:
    name = log.batch()
    intents, outcomes = [], []
    for row, (key, status, plan, seats, day) in enumerate(entries):
        facts = {"batch": name, "row": row, "key": key, "op": "change", "mapping": f"m{day}", "fence": log.fence}
        facts |= {"day": date(2026, 11, day), "row_hash": day, "failures": 0, "p:Plan": plan, "p:Seats": seats}
        intents.append(facts)
        if status != "lost":
            at = datetime(2026, 11, day, tzinfo=UTC)
            outcomes.append({"batch": name, "row": row, "status": status, "answered_at": at})
    schema = {**INTENT_SCHEMA, "p:Plan": pl.UInt64, "p:Seats": pl.UInt64}
    log.append(name, "intent", pl.DataFrame(intents, schema=schema))
    log.append(name, "outcome", pl.DataFrame(outcomes, schema=OUTCOME_SCHEMA))


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.lists(ENTRY, min_size=1, max_size=4), st.booleans(), st.booleans()), max_size=6))
def test_the_ledger_is_the_fold_of_the_log_wherever_it_is_cut(
    steps: list[tuple[list[tuple[str, str, int | None, int | None, int]], bool, bool]],
) -> None:
    with TemporaryDirectory() as folder:
        whole, cut = Store(str(Path(folder) / "whole")), Store(str(Path(folder) / "cut"))
        for fence, (entries, save, compact) in enumerate(steps, start=1):
            append(Log(whole, "s", fence), entries)
            log = Log(cut, "s", fence)
            append(log, entries)
            if save:
                log.save(fold(log, log.ledger()), compact_after=0 if compact else 10_000)
        at_once = fold(Log(whole, "s")).frame
        in_parts = fold(Log(cut, "s"), Log(cut, "s").ledger()).frame
        assert in_parts.select(at_once.columns).equals(at_once)
        assert fold(Log(cut, "s")).frame.select(at_once.columns).equals(at_once)
