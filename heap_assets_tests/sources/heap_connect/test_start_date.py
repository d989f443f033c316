"""A start date that is moved back takes the rows in that were left out; the lake is that of the earlier date."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from dump_builders import Bucket, event, land_all, landing_in, user
from polars.testing import assert_frame_equal

from heap_assets.sources.heap_connect import Landing
from heap_assets.sources.heap_connect.tables import build_event_day

EARLY, LATE = date(2026, 3, 1), date(2026, 3, 3)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """Dumps of two tables; events of `a` are corrected, and one moves to another day and back before the late start."""
    bucket = Bucket(tmp_path / "bucket")
    rows = {day: event(day, f"2026-03-0{day} 10:00:00", plan="old") for day in range(1, 5)}
    bucket.dump(1, "2026-03-05T02:00:00", a=[*rows.values()], b=[event(9, "2026-03-04 10:00:00")], users=[user(1)])
    moved = [event(1, "2026-03-04 11:00:00", plan="new"), event(4, "2026-03-02 11:00:00", plan="new")]
    bucket.dump(2, "2026-03-06T02:00:00", a=moved, b=[event(10, "2026-03-05 10:00:00")])
    bucket.dump(3, "2026-03-07T02:00:00", a=[event(1, "2026-03-03 12:00:00")], b=[event(11, "2026-03-06 10:00:00")])
    return bucket


def pending(landing: Landing, bucket: Bucket) -> list[int]:
    waiting = [manifest.dump_id for manifest in landing.waiting(bucket.source)]
    assert waiting == [manifest.dump_id for manifest in landing.pending(bucket.source)]
    return waiting


def without_starts(landing: Landing) -> None:
    """Make the records those of a former version."""
    for info in landing.store.list("_landing/_dumps"):
        document = json.loads(landing.store.read(info.key))
        for table in document["tables"]:
            del table["start"]
        landing.store.write(info.key, json.dumps(document).encode())


@pytest.mark.parametrize("former", [False, True])
def test_what_was_left_out_lands_and_nothing_else(tmp_path: Path, bucket: Bucket, former: bool) -> None:
    landing = landing_in(tmp_path / "lake", start=LATE)
    land_all(landing, bucket)
    assert landing.days("a") == [date(2026, 3, 3), date(2026, 3, 4)]
    if former:
        without_starts(landing)
        assert pending(landing_in(tmp_path / "lake", start=LATE), bucket) == []
    moved = landing_in(tmp_path / "lake", start=EARLY)
    assert pending(moved, bucket) == [1, 2], "dump 3 has no row from before"
    before = {d.dump.dump_id: d.table.landed_at for d in moved.deliveries("b")}
    reports = land_all(moved, bucket)
    assert [table.table for report in reports for table in report.tables if table.landed_at] == (
        ["a", "b"] if former else ["a"]
    ) * 2
    assert pending(moved, bucket) == []
    if not former:
        assert before == {d.dump.dump_id: d.table.landed_at for d in moved.deliveries("b")}
    at_once = landing_in(tmp_path / "another lake", start=EARLY)
    land_all(at_once, bucket)
    assert moved.days("a") == at_once.days("a") == [date(2026, 3, day) for day in (1, 2, 3, 4)]
    for day in at_once.days("a"):
        assert_frame_equal(*(build_event_day(each, "a", day).frame.collect() for each in (moved, at_once)))


def test_a_later_start_lands_nothing_anew(tmp_path: Path, bucket: Bucket) -> None:
    land_all(landing_in(tmp_path / "lake", start=EARLY), bucket)
    assert pending(landing_in(tmp_path / "lake", start=LATE), bucket) == []


def test_dumps_that_a_full_resync_replaced_stay(tmp_path: Path, bucket: Bucket) -> None:
    rows = [event(day, f"2026-03-0{day} 10:00:00") for day in range(1, 8)]
    bucket.dump(4, "2026-03-08T02:00:00", full=("a",), a=rows)
    land_all(landing_in(tmp_path / "lake", start=LATE), bucket)
    moved = landing_in(tmp_path / "lake", start=EARLY)
    assert pending(moved, bucket) == [4]
    land_all(moved, bucket)
    assert pending(moved, bucket) == []
    assert build_event_day(moved, "a", EARLY).frame.collect()["event_id"].to_list() == [1]
