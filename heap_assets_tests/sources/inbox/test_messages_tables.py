"""Days of messages by the rules of Heap's event tables, whatever order and parts they came in."""

from __future__ import annotations

import itertools
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.sources.inbox import (
    InboxDay,
    MessageColumn,
    MessageTable,
    Sizes,
    build_message_day,
    call_messages,
    deciding_rows,
    fold_accounts,
    fold_users,
    message_rows,
)
from heap_assets.sources.inbox.parts import land_parts
from heap_assets.storage import Store
from heap_assets.values import TIME

DAY = date(2026, 11, 20)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
AHEAD = timedelta(hours=48)
TRACK = MessageTable("track", (MessageColumn("total", "total", "number"), MessageColumn("plan", "plan")))
_NUMBERS = itertools.count()


def post(store: Store, *calls: Mapping[str, Any], received: datetime = NOON, segment: str = "") -> None:
    """Land calls as one segment."""
    messages = [m for call in calls for m in call_messages(dict(call), "", received, Sizes(), 100)]
    record = {"source": "web", "received_at": received.isoformat(), "messages": messages}
    land_parts(store, segment or f"s{next(_NUMBERS)}", [json.loads(json.dumps(record))])


def track(message_id: str, at: datetime | str = NOON, **properties: Any) -> dict[str, Any]:
    stamp = at if isinstance(at, str) else at.isoformat()
    call = {"type": "track", "userId": "u1", "event": "Paid", "messageId": message_id, "timestamp": stamp}
    return {**call, "properties": properties}


def built(store: Store, table: MessageTable = TRACK, day: date = DAY) -> tuple[pl.DataFrame, InboxDay]:
    built_day = build_message_day(store, table, day, AHEAD)
    return built_day.frame.collect(), built_day


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_a_message_that_came_twice_is_one_row_the_one_that_came_first(store: Store) -> None:
    post(store, track("m1", total=1), received=NOON + timedelta(hours=1))
    post(store, track("m1", total=2), received=NOON)
    rows, built_day = built(store)
    assert rows.select("message_id", "total").rows() == [("m1", 2.0)]
    assert built_day.notes["repeated"] == 1


def test_a_retry_after_midnight_of_a_message_without_a_time_is_no_second_row(store: Store) -> None:
    call = {"type": "track", "userId": "u1", "event": "Paid", "messageId": "m1"}
    post(store, call, received=datetime(2026, 11, 19, 23, 59, 59, tzinfo=UTC))
    post(store, call, received=datetime(2026, 11, 20, 0, 0, 5, tzinfo=UTC))
    assert len(built(store, day=DAY - timedelta(days=1))[0]) == 1
    assert len(built(store)[0]) == 0


def test_a_late_message_belongs_to_the_day_it_happened_and_changes_the_inputs_of_that_day(store: Store) -> None:
    post(store, track("m1"))
    before = built(store)[1].inputs.digest
    post(store, track("m2"), received=NOON + timedelta(days=9))
    rows, built_day = built(store)
    assert (len(rows), built_day.notes["late"]) == (2, 1)
    assert built_day.inputs.digest != before
    assert built(store)[1].inputs.digest == built_day.inputs.digest


def test_values_of_another_type_and_messages_of_the_future_are_rejected_rows(store: Store) -> None:
    post(
        store,
        track("m1", total="9.50"),
        track("m2", total="nine"),
        track("m3", total={"a": 1}),
        track("m4", NOON + timedelta(hours=49)),
        track("m5", total=None, plan=7),
        track("m6", other=1),
    )
    rows, built_day = built(store)
    assert sorted(rows["message_id"]) == ["m1", "m5", "m6"]
    assert built_day.notes["rejected_by"] == {"total": 2}
    assert built_day.notes["undeclared"] == {"other": 1}
    late_day = build_message_day(store, TRACK, DAY + timedelta(days=2), AHEAD)
    assert (late_day.frame.collect().height, late_day.notes["rejected_by"]) == (0, {"time": 1})


def test_columns_come_from_their_paths_with_their_types(store: Store) -> None:
    table = MessageTable(
        "identify",
        (
            MessageColumn("company", "company.name"),
            MessageColumn("odd", "a b"),
            MessageColumn("ip", "$.context.ip"),
            MessageColumn("seats", "seats", "integer"),
            MessageColumn("active", "active", "boolean"),
            MessageColumn("since", "since", "time"),
        ),
    )
    traits = {"company": {"name": "Acme"}, "a b": 1.5, "seats": 9007199254740993, "active": True, "since": "2026-01-02"}
    call = {"type": "identify", "userId": 7, "messageId": "m", "traits": traits, "context": {"ip": "10.0.0.1"}}
    post(store, call)
    row = built(store, table)[0].drop("body", "time", "received_at").row(0, named=True)
    assert row["user_id"] == "7"
    assert (row["company"], row["odd"], row["ip"], row["seats"]) == ("Acme", "1.5", "10.0.0.1", 9007199254740993)
    assert (row["active"], row["since"]) == (True, datetime(2026, 1, 2, tzinfo=UTC))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(-30, 60), st.integers(0, 90)), min_size=1, max_size=30),
    st.randoms(),
)
def test_a_day_is_the_same_whatever_order_and_segments_its_messages_came_in(
    calls: list[tuple[int, int, int]], random: Any
) -> None:
    posts = [
        (track(f"m{key}", NOON + timedelta(hours=hour), total=index), NOON + timedelta(minutes=minute, seconds=index))
        for index, (key, hour, minute) in enumerate(calls)
    ]
    results = []
    for order in (posts, random.sample(posts, len(posts))):
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder)
            for call, received in order:
                post(store, call, received=received)
            days = [built(store, day=DAY + timedelta(days=n))[0] for n in range(-2, 4)]
            results.append([frame.to_dicts() for frame in days])
    assert results[0] == results[1]
    ids = [row["message_id"] for day in results[0] for row in day]
    assert len(ids) >= len(set(ids))
    assert {f"m{key}" for key, hour, _ in calls if hour <= 36} <= set(ids)


def _folded(identify: Sequence[Mapping[str, Any]], group: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    frames = []
    for name, calls in (("identify", identify), ("group", group)):
        table = MessageTable(name, (MessageColumn("plan", "plan"), MessageColumn("city", "address.city")))
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder)
            post(store, *({"type": name, **call} for call in calls))
            frames.append(built(store, table)[0].lazy())
    return {row["id"]: row for row in fold_users(frames[0], frames[1], ["plan", "city"]).collect().to_dicts()}


def test_users_have_the_newest_value_of_each_trait_and_the_account_they_joined_last() -> None:
    def at(minute: int) -> str:
        return (NOON + timedelta(minutes=minute)).isoformat()

    people = _folded(
        [
            {"userId": "ann", "traits": {"plan": "free", "address": {"city": "Oslo"}}, "timestamp": at(1)},
            {"userId": "ann", "anonymousId": "d1", "traits": {"plan": "pro"}, "timestamp": at(3)},
            {"userId": "ann", "traits": {"plan": None}, "timestamp": at(4)},
            {"anonymousId": "d2", "traits": {"plan": "trial"}, "timestamp": at(2)},
        ],
        [
            {"userId": "ann", "groupId": "acme", "timestamp": at(5)},
            {"userId": "ann", "groupId": "globex", "timestamp": at(2)},
            {"userId": "bob", "groupId": "acme", "timestamp": at(6)},
        ],
    )
    assert (people["ann"]["plan"], people["ann"]["city"], people["ann"]["account_id"]) == ("pro", "Oslo", "acme")
    assert people["ann"]["anonymous_id"] == "d1"
    assert (people["d2"]["plan"], people["bob"]["account_id"], people["bob"]["plan"]) == ("trial", "acme", None)
    assert people["ann"]["first_seen"] == NOON + timedelta(minutes=1)


def test_accounts_have_the_newest_traits_and_how_many_joined(store: Store) -> None:
    table = MessageTable("group", (MessageColumn("tier", "tier"),))
    post(
        store,
        {"type": "group", "userId": "ann", "groupId": "acme", "traits": {"tier": "gold"}},
        {"type": "group", "userId": "bob", "groupId": "acme"},
    )
    accounts = fold_accounts(built(store, table)[0].lazy(), ["tier"]).collect()
    assert accounts.select("group_id", "tier", "people").rows() == [("acme", "gold", 2)]


def test_a_table_without_messages_has_its_columns() -> None:
    empty = message_rows(TRACK, pl.DataFrame(schema=TRACK.schema).drop("total", "plan"), AHEAD)
    assert empty.accepted.schema == TRACK.schema


@pytest.mark.parametrize("seed", range(20))
def test_users_of_the_deciding_calls_are_those_of_all(seed: int) -> None:
    dice = random.Random(seed)

    def calls(count: int, columns: list[str]) -> pl.DataFrame:
        rows = [
            {
                "message_id": f"m{n}",
                "time": NOON + timedelta(minutes=dice.randrange(50)),
                "received_at": NOON + timedelta(minutes=dice.randrange(50)),
                "user_id": dice.choice([None, "u1", "u2"]),
                "anonymous_id": dice.choice(["v1", "v2", None]),
                "group_id": dice.choice(["g1", "g2"]),
                **{column: dice.choice([None, "a", "b", "c"]) for column in columns},
            }
            for n in range(count)
        ]
        schema = dict.fromkeys(rows[0], pl.String()) | {"time": TIME, "received_at": TIME}
        return pl.DataFrame(rows, schema).filter(pl.coalesce("user_id", "anonymous_id").is_not_null())

    identify, group = calls(60, ["plan", "city"]), calls(40, [])
    few = [deciding_rows(identify, ["plan", "city"]), deciding_rows(group, [])]
    assert few[0].height <= 4 * 6
    assert (
        fold_users(few[0].lazy(), few[1].lazy(), ["plan", "city"])
        .collect()
        .equals(fold_users(identify.lazy(), group.lazy(), ["plan", "city"]).collect())
    )
