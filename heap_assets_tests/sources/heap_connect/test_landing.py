"""What landing promises: whole tables, nothing twice, nothing lost, and every failure named."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
from dump_builders import Bucket, Clock, event, land_all, landing_in, migration, touch, user

from heap_assets.sources.heap_connect import (
    Selection,
    build_event_day,
    build_user_migrations,
    build_users,
    rows_set_aside,
)

MARCH_1, MARCH_2, MARCH_3 = date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)


def rows_of(landing, table: str, day: date) -> pl.DataFrame:
    return build_event_day(landing, table, day).frame.collect()


def test_rows_land_on_their_own_day_and_types(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(
        7,
        "2026-03-02T02:00:00",
        signup=[event(2, "2026-03-01 23:59:59.999999", plan="a"), event(1, "2026-03-02 00:00:00", plan="b")],
    )
    landing = landing_in(tmp_path / "lake")
    (report,) = land_all(landing, bucket)
    assert report.day == MARCH_1
    assert report.touched == {"signup": {MARCH_1, MARCH_2}}
    assert report.new_tables == ("signup",)
    first, second = rows_of(landing, "signup", MARCH_1), rows_of(landing, "signup", MARCH_2)
    assert first.rows() == [(2, 1, 2, datetime(2026, 3, 1, 23, 59, 59, 999999, tzinfo=UTC), "a")]
    assert second["event_id"].to_list() == [1]
    assert landing.pending(bucket.source) == []


def test_a_newer_dump_replaces_all_rows_of_an_event(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(
        9, "2026-03-02T02:00:00", signup=[event(1, "2026-03-01 10:00:00", 5), event(1, "2026-03-01 10:00:00", 6)]
    )
    bucket.dump(10, "2026-03-03T02:00:00", signup=[event(1, "2026-03-01 10:00:00", 7)])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    assert rows_of(landing, "signup", MARCH_1)["user_id"].to_list() == [7]


def test_a_full_resync_replaces_also_days_it_does_not_contain(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", signup=[event(1, "2026-03-01 10:00:00"), event(2, "2026-03-02 01:00:00")])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    bucket.dump(2, "2026-03-03T02:00:00", full=["signup"], signup=[event(3, "2026-03-02 10:00:00")])
    (report,) = land_all(landing, bucket)
    assert report.touched["signup"] == {MARCH_1, MARCH_2}
    assert rows_of(landing, "signup", MARCH_1).height == 0
    assert rows_of(landing, "signup", MARCH_2)["event_id"].to_list() == [3]


def test_an_empty_full_table_empties_it(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", signup=[event(1, "2026-03-01 10:00:00")])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    bucket.manifest(
        2, "2026-03-03T02:00:00", {"dump_id": "2", "tables": [{"name": "signup", "files": [], "incremental": False}]}
    )
    (report,) = land_all(landing, bucket)
    assert report.touched["signup"] == {MARCH_1}
    assert rows_of(landing, "signup", MARCH_1).height == 0


def test_one_bad_table_is_named_and_does_not_stop_the_others(tmp_path: Path) -> None:
    bucket, clock = Bucket(tmp_path / "bucket"), Clock()
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")], b=[event(2, "2026-03-01 10:00:00")])
    good = bucket.file(1, "a").read_bytes()
    bucket.file(1, "a").write_bytes(good[:-20])
    landing = landing_in(tmp_path / "lake", clock=clock)
    (report,) = land_all(landing, bucket)
    (failed,) = report.failed
    assert failed.table == "a"
    assert failed.failure is not None
    assert failed.failure.block == 0
    assert re.match(r"s3://.*/sync_1/a/part-.*\.avro, block 0: the file ends inside it", failed.failure.summary)
    assert rows_of(landing, "b", MARCH_1).height == 1
    assert landing.pending(bucket.source) == []
    clock.forward(minutes=6)
    assert len(landing.pending(bucket.source)) == 1
    land_all(landing, bucket)
    clock.forward(minutes=6)
    assert landing.pending(bucket.source) == []
    bucket.file(1, "a").write_bytes(good)
    (report,) = land_all(landing, bucket)
    assert [t.table for t in report.landed] == ["a"]
    assert rows_of(landing, "a", MARCH_1).height == 1


def test_a_file_changed_in_place_lands_again(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    bucket.dump(1, "2026-03-09T02:00:00", a=[event(2, "2026-03-02 10:00:00")])
    touch(bucket.path / "manifests/sync_1.json", "2026-03-02T02:00:00")
    (report,) = land_all(landing, bucket)
    assert report.day == MARCH_1
    assert report.touched["a"] == {MARCH_1, MARCH_2}
    assert rows_of(landing, "a", MARCH_1).height == 0


def test_rows_before_the_start_are_counted_and_rows_far_ahead_are_set_aside(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    times = ["2025-12-31 23:59:59", "2026-01-01 00:00:00", "2026-03-03 23:00:00", "2026-03-04 03:00:00", "soon"]
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(i, t) for i, t in enumerate(times)])
    landing = landing_in(tmp_path / "lake")
    (report,) = land_all(landing, bucket)
    (a,) = report.tables
    assert (a.counts.read, a.counts.landed, a.counts.before_start, a.counts.ahead, a.counts.rejected) == (5, 2, 1, 1, 2)
    assert a.rejected == {"time is more than 48 hours after the dump": 1, "time is not a time": 1}
    (key,) = a.rejected_keys
    aside = landing.store.scan(key).collect()
    assert aside["row"].to_list() == [3, 4]
    notes = build_event_day(landing, "a", MARCH_1).notes
    assert (notes["rejected"], notes["rejected_reasons"], notes["set_aside"]) == (2, a.rejected, [key])
    shown = rows_set_aside(landing, "a")
    assert shown.select("table", "dump_id", "row").rows() == [("a", 1, 3), ("a", 1, 4)]
    assert rows_set_aside(landing, "b").is_empty()


def test_unselected_tables_and_columns_are_reported_and_not_loaded(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(
        1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00", x="1", y="2")], b=[event(2, "2026-03-01 1:00")]
    )
    landing = landing_in(tmp_path / "lake", selection=Selection(("a",), (), {"a": ["x"]}))
    (report,) = land_all(landing, bucket)
    assert report.unselected == ("b",)
    assert report.tables[0].left_out == ("y",)
    assert rows_of(landing, "a", MARCH_1).columns == ["event_id", "user_id", "session_id", "time", "x"]
    assert landing.pending(bucket.source) == []


def test_users_keep_the_newest_modification_whatever_the_order(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(
        1,
        "2026-03-02T02:00:00",
        users=[user(1, "2026-03-01 10:00:00", email="new"), user(2, "2026-03-01 10:00:00", email="b")],
        user_migrations=[migration(2, 3), migration(3, 4), migration(8, 9), migration(9, 8)],
    )
    bucket.dump(2, "2026-03-03T02:00:00", users=[user(1, "2026-02-01 10:00:00", email="old")])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    users = build_users(landing, MARCH_2).frame.collect()
    assert users.select("user_id", "email", "migrated_to").rows() == [(1, "new", None), (2, "b", 4)]
    moved = build_user_migrations(landing, MARCH_2).frame.collect()
    assert moved.select("from_user_id", "resolved_to", "cycle").rows() == [
        (2, 4, False),
        (3, 4, False),
        (8, 8, True),
        (9, 8, True),
    ]


def test_a_column_that_changes_type_is_kept_twice(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00", plan="x")])
    bucket.dump(2, "2026-03-03T02:00:00", a=[event(2, "2026-03-01 11:00:00", plan=7)])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    rows = rows_of(landing, "a", MARCH_1)
    assert rows.select("plan", "plan__long").rows() == [("x", None), (None, 7)]


def test_a_reset_table_lands_again_and_builds_the_same_versions(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")], b=[event(2, "2026-03-01 10:00:00")])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    before = build_event_day(landing, "a", MARCH_1).inputs
    assert landing.reset("a") == 1
    (report,) = land_all(landing, bucket)
    assert [t.table for t in report.landed] == ["a"]
    assert build_event_day(landing, "a", MARCH_1).inputs == before


def test_an_event_that_moves_leaves_its_old_day_in_either_order(tmp_path: Path) -> None:
    for name, order in (("forward", (1, 2)), ("backward", (2, 1))):
        bucket = Bucket(tmp_path / name)
        bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00"), event(2, "2026-03-01 11:00:00")])
        bucket.dump(2, "2026-03-03T02:00:00", a=[event(1, "2026-03-02 10:00:00")])
        landing = landing_in(tmp_path / f"{name}-lake")
        reports = [landing.land(bucket.source, dump_id) for dump_id in order]
        assert rows_of(landing, "a", MARCH_1)["event_id"].to_list() == [2]
        assert rows_of(landing, "a", MARCH_2)["event_id"].to_list() == [1]
        assert reports[-1].touched["a"] >= {MARCH_1}


def test_reports_tell_new_updated_and_unchanged_rows(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    same, old = event(1, "2026-03-01 10:00:00", plan="x"), event(2, "2026-03-01 10:00:00", plan="x")
    bucket.dump(1, "2026-03-02T02:00:00", a=[same, old], users=[user(1, email="x")])
    bucket.dump(
        2,
        "2026-03-03T02:00:00",
        a=[same, old | {"plan": "y"}, event(3, "2026-03-02 1:00:00", plan="z")],
        users=[user(1, email="y"), user(2)],
    )
    landing = landing_in(tmp_path / "lake")
    counts = {t.table: t.counts for t in land_all(landing, bucket)[1].tables}
    assert (counts["a"].new, counts["a"].updated, counts["a"].unchanged) == (1, 1, 1)
    assert (counts["users"].new, counts["users"].updated, counts["users"].unchanged) == (1, 1, 0)


def test_a_full_snapshot_that_lands_late_touches_its_own_day(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", user_migrations=[migration(1, 9)])
    bucket.dump(2, "2026-03-03T02:00:00", user_migrations=[migration(1, 9), migration(2, 9)])
    landing = landing_in(tmp_path / "lake")
    assert landing.land(bucket.source, 2).touched == {"user_migrations": {MARCH_2}}
    assert landing.land(bucket.source, 1).touched == {"user_migrations": {MARCH_1}}
    assert build_user_migrations(landing, MARCH_1).frame.collect()["from_user_id"].to_list() == [1]
