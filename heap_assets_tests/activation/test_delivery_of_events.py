"""Events: each row once, to the identity its person has then."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import delivery_kit as kit
import polars as pl
import pytest

from heap_assets.activation import AddressPolicy, Status, SyncReport, SyncSpec, deliver
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_events import HeapEvents
from heap_assets.activation.engine.event_keys import WHOLE_ROW, EventKey
from heap_assets.activation.engine.events import EventMapping, addressed_events, event_rows
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.storage import Store

BY_HASH = EventMapping(WHOLE_ROW, name="Order Placed", timestamp_column="at")
COLUMNS = ("person", "total", "at")


def orders(count: int) -> pl.LazyFrame:
    at = [datetime(2026, 11, 19, 8, tzinfo=UTC) + timedelta(minutes=n) for n in range(count)]
    return pl.LazyFrame(
        {"person": [f"u{n}" for n in range(count)], "total": [float(n) for n in range(count)], "at": at}
    )


def with_key(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.with_columns(key=pl.col("person"))


def send_events(heap: ServerProcess, lake: Store, rows: pl.LazyFrame, **choices: object) -> SyncReport:
    spec = SyncSpec("orders", {"Total": "total"}, retry=kit.QUICK)
    destination = HeapEvents(HeapApp(kit.APP, base_url=heap.base_url), source="billing.orders", **choices)  # type: ignore[arg-type]
    return deliver(spec, destination, rows, lake, kit.DAY, "r")


@pytest.mark.parametrize("bulk", [True, False])
def test_only_added_rows_are_sent(heap: ServerProcess, lake: Store, bulk: bool) -> None:
    rows = with_key(event_rows(orders(30), BY_HASH, COLUMNS))
    assert send_events(heap, lake, rows, bulk=bulk).sent == 30
    assert send_events(heap, lake, rows, bulk=bulk).requests == 0
    more = with_key(event_rows(orders(33).filter(pl.col("total") > 5), BY_HASH, COLUMNS))
    assert send_events(heap, lake, more, bulk=bulk).sent == 3, "vanished rows are not taken back"
    stored = sorted(heap.state()["events"].values(), key=lambda event: str(event["timestamp"]))
    assert len(stored) == 33
    assert stored[0]["event"] == "Order Placed"
    assert stored[0]["timestamp"] == "2026-11-19T08:00:00.000Z"
    assert stored[0]["properties"]["sent_by"] == "heap_assets"


def test_new_properties_of_events_are_named_before_they_are_sent(
    heap: ServerProcess, lake: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def sent(rows: pl.LazyFrame, **properties: str) -> SyncReport:
        destination = HeapEvents(HeapApp(kit.APP, base_url=heap.base_url), source="billing.orders")
        spec = SyncSpec("orders", properties, retry=kit.QUICK)
        return deliver(spec, destination, with_key(event_rows(rows, BY_HASH, COLUMNS)), lake, kit.DAY, "r")

    assert sent(orders(2), Total="total").new_properties == ("Total",)
    assert sent(orders(3), Total="total").new_properties == ()
    assert not caplog.messages
    assert sent(orders(4), Total="total", Who="person").new_properties == ("Who",)
    assert caplog.messages == ["sync orders sends properties for the first time, which may create them: Who"]


def test_rows_with_bytes_in_their_structs_have_keys() -> None:
    raw = pl.Series([{"raw": [b"\xff"]}, {"raw": [b"\xfe"]}])
    rows = event_rows(orders(2).with_columns(raw.alias("raw")), BY_HASH, ("person", "raw")).collect()
    assert rows["event_key"].n_unique() == 2


def test_equal_rows_are_two_events_and_resolved_columns_never_make_a_new_one(heap: ServerProcess, lake: Store) -> None:
    twice = pl.concat([orders(2), orders(2)])
    rows = with_key(event_rows(twice, BY_HASH, COLUMNS))
    assert send_events(heap, lake, rows).sent == 4
    merged = event_rows(twice.with_columns(profile_id=pl.lit("merged")), BY_HASH, COLUMNS)
    assert send_events(heap, lake, merged.with_columns(key=pl.lit("u0"))).requests == 0


def test_the_row_hash_is_sha256_of_the_canonical_text() -> None:
    rows = event_rows(orders(1), BY_HASH, COLUMNS).collect()
    text = "at\x1f2026-11-19T08:00:00.000000Z\x1eperson\x1fu0\x1etotal\x1f0.0"
    assert rows["event_key"].to_list() == [hashlib.sha256(text.encode()).hexdigest()[:32]]
    swapped = event_rows(orders(1).select("total", "at", "person"), BY_HASH, ("at", "total", "person")).collect()
    assert swapped["event_key"].to_list() == rows["event_key"].to_list()
    null = event_rows(orders(1).with_columns(person=pl.lit(None, pl.String)), BY_HASH, COLUMNS).collect()
    empty = event_rows(orders(1).with_columns(person=pl.lit("")), BY_HASH, COLUMNS).collect()
    assert null["event_key"].to_list() != empty["event_key"].to_list()


def test_name_and_key_may_be_columns_and_bad_rows_say_why(heap: ServerProcess, lake: Store) -> None:
    table = pl.LazyFrame(
        {
            "key": ["a", "b", "c", "d", None],
            "order_id": [1, 2, 3, 4, 5],
            "what": ["Paid", None, "x" * 1025, "Paid", "Paid"],
            "when": ["2026-11-19T08:00:00+02:00", None, None, "yesterday", None],
            "total": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    )
    mapping = EventMapping(EventKey(("order_id",)), name_column="what", timestamp_column="when")
    report = send_events(heap, lake, event_rows(table, mapping, ()))
    assert (report.sent, report.status) == (1, Status.PARTIAL)
    assert report.invalid_reasons == {
        "event name is longer than 1024 characters": 1,
        "event name is null or blank": 1,
        "key is null": 1,
        "time cannot be read": 1,
    }
    (event,) = heap.state()["events"].values()
    assert event["timestamp"] == "2026-11-19T06:00:00.000Z"


def test_without_a_timestamp_none_is_sent(heap: ServerProcess, lake: Store) -> None:
    rows = with_key(event_rows(orders(1), EventMapping(WHOLE_ROW, name="Paid"), ("person",)))
    send_events(heap, lake, rows)
    (event,) = heap.state()["events"].values()
    assert "timestamp" not in event


def test_an_event_waits_for_its_person_and_then_goes_with_its_own_time(heap: ServerProcess, lake: Store) -> None:
    events = event_rows(orders(2), BY_HASH, COLUMNS).with_columns(profile_id=pl.Series(["p0", "p1"]))
    users = pl.LazyFrame(
        {"identity": ["u0"], "migrated_to": [None], "last_modified": [None]},
        schema={"identity": pl.String, "migrated_to": pl.Int64, "last_modified": pl.Datetime("us", "UTC")},
    )
    profiles = pl.LazyFrame({"profile_id": ["p0", "p1"], "heap_identities": [["u0"], ["u1"]]})
    policy = AddressPolicy()

    def run(known: pl.LazyFrame, days: int) -> SyncReport:
        day = kit.later(days)
        rows = addressed_events(events, profiles, known, policy, day=day, hold_days=7)
        spec = SyncSpec("orders", {"Total": "total"}, retry=kit.QUICK)
        destination = HeapEvents(HeapApp(kit.APP, base_url=heap.base_url), source="billing.orders")
        return deliver(spec, destination, rows, lake, day, "r")

    first = run(users, 0)
    assert (first.sent, first.held, first.status) == (1, 1, Status.SUCCEEDED)
    late = run(users, 9)
    assert (late.held, late.invalid_reasons) == (0, {"expired: nobody to send it to": 1})
    arrived = pl.concat([users, users.with_columns(identity=pl.lit("u1"))])
    assert run(arrived, 3).sent == 1
    times = {e["identity"]: e["timestamp"] for e in heap.state()["events"].values()}
    assert times["u1"] == "2026-11-19T08:01:00.000Z"


@pytest.mark.parametrize("create", [False, True])
def test_an_identity_that_heap_has_never_seen_waits_or_is_created(create: bool) -> None:
    events = event_rows(orders(4), BY_HASH, COLUMNS).with_columns(profile_id=pl.Series(["p0", "p1", "p1", "p2"]))
    users = pl.LazyFrame(
        {"identity": ["u0", "u2"], "migrated_to": [None, 7], "last_modified": [None, None]},
        schema={"identity": pl.String, "migrated_to": pl.Int64, "last_modified": pl.Datetime("us", "UTC")},
    )
    profiles = pl.LazyFrame({"profile_id": ["p0", "p1", "p2"], "heap_identities": [["u0"], ["u1"], ["u2"]]})
    policy = AddressPolicy(allow_new=create, hold_migrated=create)
    result = addressed_events(events, profiles, users, policy, day=kit.DAY)
    assert result.rows.collect()["key"].to_list() == (["u0", "u1", "u1"] if create else ["u0"])
    assert result.counts["would_create"] == (1 if create else 0)
    assert result.counts["unknown_identities"] == (0 if create else 1)
    unseen, migrated = ["Heap has never seen its identity"] * 2, "its person is not in Heap yet"
    assert result.held.collect()["reason"].to_list() == [*([] if create else unseen), migrated]


def test_events_before_since_are_left_alone() -> None:
    events = event_rows(orders(10), BY_HASH, COLUMNS).with_columns(profile_id=pl.lit("p"))
    profiles = pl.LazyFrame({"profile_id": ["p"], "heap_identities": [["u"]]})
    users = pl.LazyFrame(
        {"identity": ["u"], "migrated_to": [None], "last_modified": [None]},
        schema={"identity": pl.String, "migrated_to": pl.Int64, "last_modified": pl.Datetime("us", "UTC")},
    )
    since = datetime(2026, 11, 19, 8, 6, tzinfo=UTC)
    result = addressed_events(events, profiles, users, AddressPolicy(), day=kit.DAY, since=since)
    assert len(result.rows.collect()) == 4
    assert result.counts["before_since"] == 6


def test_an_event_mapping_needs_exactly_one_name() -> None:
    with pytest.raises(SettingsError, match="either a name or a column"):
        EventMapping(WHOLE_ROW)
    with pytest.raises(SettingsError, match="'nope'"):
        event_rows(orders(1), EventMapping(WHOLE_ROW, name_column="nope"), COLUMNS)
