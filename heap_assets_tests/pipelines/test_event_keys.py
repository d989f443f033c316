"""Events of a table are told apart by its key: news of its columns, or of the settings, send no event again."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from heap_assets.activation import Status, runs
from heap_assets.demo.server_process import ServerProcess
from heap_assets.pipelines import delivery
from heap_assets_tests.pipelines.delivery_fixtures import Worlds
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, World, at, calls, orders

EVENTS = "heap_events: {source: orders, event_name: Ordered, since: beginning, properties: {Total: total}"
NAMED = "heap_events: {source: orders, event_name_column: state, timestamp_column: changed_at, since: beginning"
Change = Callable[[pl.DataFrame], pl.DataFrame]
NEWS: dict[str, Change] = {
    "added": lambda rows: rows.with_columns(channel=pl.lit("web")),
    "retyped to text": lambda rows: rows.with_columns(pl.col("total").cast(pl.String) + " EUR"),
    "retyped to a decimal": lambda rows: rows.with_columns(pl.col("total").cast(pl.Decimal(12, 4))),
    "dropped": lambda rows: rows.drop("note"),
    "other values": lambda rows: rows.with_columns(pl.col("total") + 1),
    "nested": lambda rows: rows.with_columns(note=pl.struct("note")),
}


def placed(count: int = 30) -> pl.DataFrame:
    rows = [(f"o-{n}", f"{('ann', 'bob', 'cat')[n % 3]}@x.example", at(BEFORE, n % 24)) for n in range(count)]
    return orders(*rows).with_columns(note=pl.lit("a note"))


def with_orders(worlds: Worlds, syncs: str, table: pl.DataFrame) -> World:
    world = worlds(syncs)
    return now_with(world, table)


def now_with(world: World, table: pl.DataFrame) -> World:
    world.write("warehouse/orders", DAY, table)
    world.resolve(DAY)
    return world


def send(world: World, run: str = "r", **choices: bool) -> delivery.SyncReport:
    return delivery.send(world.project, "heap_events", DAY, run, delivery.RunOptions(**choices)).report


def test_no_news_of_columns_sends_an_event_again(worlds: Worlds, heap: ServerProcess) -> None:
    world = with_orders(worlds, EVENTS + "}", placed())
    assert send(world).sent == 30
    for news, change in NEWS.items():
        report = send(now_with(world, change(placed())))
        assert (report.status, report.requests, report.unchanged) == (Status.SUCCEEDED, 0, 30), news
    more = NEWS["added"](placed(32)).drop("note")
    assert send(now_with(world, more)).sent == 2


def test_a_row_with_another_name_or_time_is_another_event(worlds: Worlds, heap: ServerProcess) -> None:
    rows = placed(3).with_columns(state=pl.lit("Ordered"), changed_at=pl.col("placed_at"))
    world = with_orders(worlds, NAMED + "}", rows)
    assert send(world).sent == 3
    other_types = rows.with_columns(pl.col("changed_at").dt.strftime("%Y-%m-%d %H:%M:%S+00:00"), total=pl.lit("x"))
    assert send(now_with(world, other_types)).requests == 0
    paid = rows.with_columns(state=pl.Series(["Paid", "Ordered", "Ordered"]))
    assert send(now_with(world, paid)).sent == 1
    later = paid.with_columns(changed_at=pl.Series([at(BEFORE, 0), at(DAY, 1), at(BEFORE, 2)]))
    assert send(now_with(world, later)).sent == 1
    assert sorted(event["event"] for event in heap.state()["events"].values()) == ["Ordered"] * 4 + ["Paid"]


def test_other_settings_of_the_key_send_nothing_again(worlds: Worlds, heap: ServerProcess) -> None:
    rows = placed().with_columns(uuid=pl.format("u-{}", "order_id"), changed_at=pl.col("placed_at").dt.offset_by("1h"))
    world = with_orders(worlds, EVENTS + "}", rows)
    assert send(world).sent == 30
    for choice in ("event_key: uuid", "timestamp_column: changed_at", "event_key: order_id"):
        world.choose(f"{EVENTS}, {choice}}}")
        planned, _ = delivery.plan(world.project, "heap_events", DAY)
        assert (planned.report.planned, planned.report.unchanged) == (0, 30), choice
        report = send(world)
        assert (report.status, report.requests, report.unchanged) == (Status.SUCCEEDED, 0, 30), choice


def test_keys_that_all_change_are_asked_about_as_often_as_it_takes(worlds: Worlds, heap: ServerProcess) -> None:
    world = with_orders(worlds, EVENTS + "}", placed())
    assert send(world).sent == 30
    before = calls(heap)
    now_with(world, placed(31).with_columns(order_id=pl.format("new-{}", "order_id")))
    for attempt in range(9):
        report = send(world, f"asks {attempt}")
        assert (report.status, report.changed) == (Status.NEEDS_CONFIRMATION, 30)
    assert calls(heap) == before
    assert "30 events of days that were delivered would be sent again" in str(report.reason)
    assert "made of order_id" in str(report.reason)
    assert send(world, "confirmed", confirmed=True).sent == 31
    assert send(world).requests == 0


def test_events_that_come_late_or_leave_the_table_are_no_reason_to_ask(worlds: Worlds, heap: ServerProcess) -> None:
    world = with_orders(worlds, EVENTS + "}", placed())
    assert send(world).sent == 30
    assert send(now_with(world, placed(60))).sent == 30, "as many again, of a day that was delivered"
    assert send(now_with(world, placed(64).tail(34))).sent == 4, "a table of the newest rows"


def test_a_damaged_record_of_the_key_sends_nothing(worlds: Worlds, heap: ServerProcess) -> None:
    world = with_orders(worlds, EVENTS + "}", placed())
    send(world)
    world.lake.store.write("_sync/heap_events/event_key.json", b"{")
    assert send(world).requests == 0
    assert runs(world.lake.store, "heap_events")["status"].to_list() == ["succeeded", "succeeded"]
