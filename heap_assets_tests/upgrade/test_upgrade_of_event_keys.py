"""A ledger whose event keys are hashes of whole rows is taken over: no event is sent again, then or ever after.

`events_by_whole_rows.tar.xz` has the ledger of `heap_events` that the last commit with such keys wrote, sending the
table :func:`placed` of two days to a server on the port below, which is a part of the ledger's name.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from heap_assets.activation import Log, fold, hashed_key, salt
from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets.pipelines import delivery
from heap_assets.pipelines.offenders import forget_person
from heap_assets_tests.pipelines.delivery_fixtures import at_three_in_the_morning, base
from heap_assets_tests.pipelines.delivery_world import APP, BEFORE, DAY, World, at, orders

__all__ = ["at_three_in_the_morning", "base"]

STATE = Path(__file__).with_name("events_by_whole_rows.tar.xz")
PORT = 17314
EVENTS = "heap_events: {source: orders, event_name: Ordered, since: beginning, properties: {Total: total}"


def placed() -> pl.DataFrame:
    rows = [(f"o-{n}", f"{('ann', 'bob', 'cat')[n % 3]}@x.example", at(BEFORE, n % 24)) for n in range(40)]
    return orders(*rows, ("o-900", "dan@x.example", at(DAY)))


@pytest.fixture
def heap(tmp_path: Path) -> Iterator[ServerProcess]:
    with running_server("heap", tmp_path / "heap", port=PORT, arguments=["--app-id", APP]) as server:
        yield server


@pytest.fixture
def world(base: World, heap: ServerProcess, tmp_path: Path) -> World:
    """The lake that the events were sent from, and their ledger."""
    world = base.copy(tmp_path / "world", EVENTS + "}", heap.base_url)
    for day in (BEFORE, DAY):
        world.write("warehouse/orders", day, placed())
        world.resolve(day)
    with tarfile.open(STATE) as archive:
        archive.extractall(world.folder / "lake", filter="data")
    return world


def test_events_that_were_sent_are_known_by_the_key_of_the_table(world: World, heap: ServerProcess) -> None:
    planned, _ = delivery.plan(world.project, "heap_events", DAY)
    assert (planned.report.planned, planned.report.unchanged) == (0, 40)
    first = delivery.send(world.project, "heap_events", DAY, "first").report
    assert (first.requests, first.unchanged, first.held) == (0, 40, 1)
    log = Log(world.lake.store, "heap_events")
    known = set(fold(log, log.ledger()).frame["key"])
    assert {f"o-{n}" for n in range(40)} < known
    assert len(known) == 80, "a former release still knows them"
    world.write("warehouse/orders", DAY, placed().with_columns(channel=pl.lit("web"), total=pl.lit("9.5 EUR")))
    world.resolve(DAY)
    assert delivery.send(world.project, "heap_events", DAY, "second").report.requests == 0


def test_columns_that_changed_before_the_upgrade_send_nothing_either(world: World, heap: ServerProcess) -> None:
    changed = placed().with_columns(total=pl.lit("9.5 EUR"), channel=pl.lit("web"))
    world.write("warehouse/orders", DAY, changed.with_row_index("row").with_columns(pl.col("row").cast(pl.String)))
    world.resolve(DAY)
    report = delivery.send(world.project, "heap_events", DAY, "first").report
    assert (report.requests, report.unchanged) == (0, 40)


def test_who_is_forgotten_before_the_upgrade_stays_so(world: World, heap: ServerProcess) -> None:
    assert forget_person(world.project, "heap_events", "ann@x.example", "gdpr") == 14
    report = delivery.send(world.project, "heap_events", DAY, "first").report
    assert (report.requests, report.unchanged) == (0, 26)
    store = world.lake.store
    refused = pl.read_parquet(store.read("_sync/heap_events/forgotten.parquet"))["key_hash"]
    assert hashed_key("o-0", salt(store)) in refused.to_list()
