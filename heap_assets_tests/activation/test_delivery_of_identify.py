"""Identify cannot be undone: it happens only under all of its conditions."""

from __future__ import annotations

import delivery_kit as kit
import polars as pl

from heap_assets.activation import Status, SyncReport, SyncSpec, deliver
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_identify import (
    HeapIdentify,
    confirm_identified,
    identify_candidates,
    sent_pairs,
)
from heap_assets.demo.server_process import ServerProcess
from heap_assets.storage import Store

SPEC = SyncSpec("identify", retry=kit.QUICK)


def pairs(*wanted: tuple[int, str]) -> pl.LazyFrame:
    frame = pl.DataFrame(wanted, schema={"user_id": pl.Int64, "key": pl.String}, orient="row")
    user_id = pl.col("user_id").cast(pl.String)
    return frame.select("key", user_id=user_id, event_key=pl.concat_str(user_id, pl.lit("\x1f"), "key")).lazy()


def identify(heap: ServerProcess, lake: Store, rows: pl.LazyFrame, *, enabled: bool = True) -> SyncReport:
    destination = HeapIdentify(HeapApp(kit.APP, base_url=heap.base_url), enabled=enabled)
    return deliver(SPEC, destination, rows, lake, kit.DAY, "r")


def test_it_is_off_until_it_is_switched_on(heap: ServerProcess, lake: Store) -> None:
    report = identify(heap, lake, pairs((1, "ann")), enabled=False)
    assert (report.status, kit.requests(heap)) == (Status.REFUSED, 0)
    assert "cannot be undone" in str(report.reason)


def test_a_user_id_never_gets_two_identities(heap: ServerProcess, lake: Store) -> None:
    assert identify(heap, lake, pairs((1, "ann"), (2, "bob"))).sent == 2
    second = identify(heap, lake, pairs((1, "cat"), (3, "ann"), (3, "bob")))
    assert second.sent == 0
    assert second.held_reasons == {
        "this user_id was sent to another identity": 1,
        "two identities want this user_id": 2,
    }
    assert heap.state()["identify"] == {"1": "ann", "2": "bob"}


def test_an_identity_takes_ten_user_ids_a_month(heap: ServerProcess, lake: Store) -> None:
    assert identify(heap, lake, pairs(*((n, "ann") for n in range(7)))).sent == 7
    report = identify(heap, lake, pairs(*((n, "ann") for n in range(14)), (99, "bob")))
    assert report.sent == 4
    assert report.held_reasons == {"its identity took ten user_ids this month": 4}
    assert heap.state()["summary"].get("identify_ignored", 0) == 0


def test_a_pair_is_acknowledged_when_the_export_shows_it(heap: ServerProcess, lake: Store) -> None:
    identify(heap, lake, pairs((1, "ann"), (2, "bob")))
    assert set(sent_pairs(lake, "identify")["status"]) == {"sent"}
    migrations = pl.LazyFrame({"from_user_id": [1], "resolved_to": [700]})
    users = pl.LazyFrame({"user_id": [700], "identity": ["ann"]})
    assert confirm_identified(lake, SPEC, migrations, users, "confirm") == 1
    assert dict(sent_pairs(lake, "identify").select("user_id", "status").iter_rows()) == {
        "1": "acknowledged",
        "2": "sent",
    }
    assert identify(heap, lake, pairs((1, "ann"), (2, "bob"))).requests == 0
    kit.assert_ledger_is_the_log(lake, "identify")


def test_candidates_are_anonymous_unshared_conflict_free_and_joined_for_a_fortnight() -> None:
    rows = [
        # user_id, profile now, profile then, shared
        ("1", "ann", "ann", False),
        ("2", "ann", None, False),  # joined yesterday
        ("3", "ann", "bob", False),  # was somebody else's
        ("4", "ann", "ann", True),  # a kiosk
        ("5", "two", "two", False),  # its profile has two identities
        ("6", "odd", "odd", False),  # its profile has conflicts
        ("7", "ann", "ann", False),  # identified already
        ("8", "ann", "ann", False),  # migrated away
    ]
    people = [("heap_identity", name, name, False) for name in ("ann", "bob", "two", "odd")]

    def graph(column: int) -> pl.LazyFrame:
        listed = [("heap_user_id", r[0], r[column], r[3]) for r in rows] + people
        schema = {"identifier_type": pl.String, "identifier": pl.String, "profile_id": pl.String, "shared": pl.Boolean}
        return pl.LazyFrame([r for r in listed if r[2] is not None], schema=schema, orient="row")

    profiles = pl.LazyFrame(
        {
            "profile_id": ["ann", "two", "odd"],
            "heap_identities": [["ann"], ["two", "too"], ["odd"]],
            "conflicts": [0, 0, 1],
        }
    )
    users = pl.LazyFrame(
        {
            "user_id": [1, 2, 3, 4, 5, 6, 7, 8, 700],
            "identity": [None] * 6 + ["someone", None, "ann"],
            "migrated_to": [None] * 7 + [700, None],
        }
    )
    found = identify_candidates(graph(1), graph(2), profiles, users).collect()
    assert found.select("user_id", "key").rows() == [("1", "ann")]
