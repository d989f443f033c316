"""A built day is a function of what landed, and of nothing else: not of order, files, batches or luck."""

from __future__ import annotations

import random
import shutil
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from dump_builders import START, Bucket, Clock, event, land_all, landing_in, migration, user
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from heap_assets.sources.heap_connect import Landing, build_event_day, build_user_migrations, build_users, tables
from heap_assets.sources.heap_connect.large_days import day_rows
from heap_assets.sources.heap_connect.snapshots import resolved
from heap_assets.storage import Lake, Status

MARCH_1, MARCH_2, MARCH_3 = date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)
# Every example lands dumps; shrinking one would take minutes and the failing history is short as it is.
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
DAYS = [date(2026, 3, 1) + timedelta(days=i) for i in range(4)]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[bool, list[dict[str, Any]]]]:
    """Dumps of one table: whether each is full, and its rows; few ids, so that they meet again."""
    rows = st.builds(
        lambda i, d, s, u, p: event(i, f"{DAYS[d]} 10:00:{s:02d}", u, plan=p),
        st.integers(1, 6),
        st.integers(0, 3),
        st.integers(0, 2),
        st.integers(1, 2),
        st.sampled_from(["x", "y", None]),
    )
    return draw(st.lists(st.tuples(st.booleans(), st.lists(rows, max_size=6)), min_size=1, max_size=5))


def expected_rows(history: list[tuple[bool, list[dict[str, Any]]]]) -> set[tuple[int, int]]:
    """Say by the plainest reading of the rules which (event_id, user_id) stand on which dump's word."""
    standing: dict[int, list[dict[str, Any]]] = {}
    for full, rows in history:
        if full:
            standing = {}
        by_id: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            by_id.setdefault(row["event_id"], []).append(row)
        standing |= by_id
    return {(row["event_id"], row["user_id"]) for rows in standing.values() for row in rows}


def write(bucket: Bucket, history: list[tuple[bool, list[dict[str, Any]]]], rnd: random.Random) -> None:
    for number, (full, rows) in enumerate(history):
        shuffled = rnd.sample(rows, len(rows))
        cut = rnd.randint(0, len(rows))
        files = [shuffled[:cut], shuffled[cut:]] if rows else [[]]
        bucket.dump(number + 9, f"2026-03-{number + 5:02d}T02:00:00", full=["a"] if full else [], a=files)


def built(landing: Landing) -> pl.DataFrame:
    return pl.concat([build_event_day(landing, "a", day, ["plan"]).frame.collect() for day in DAYS], how="vertical")


@settings(max_examples=12, deadline=None, phases=QUICK)
@given(histories(), st.randoms(use_true_random=False))
def test_rows_stand_by_the_rules_in_any_order_of_landing(history: Any, rnd: random.Random) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        one, other = Bucket(folder / "one"), Bucket(folder / "other")
        write(one, history, rnd)
        write(other, history, rnd)
        in_order, shuffled = landing_in(folder / "in-order"), landing_in(folder / "shuffled")
        land_all(in_order, one)
        dumps = [m.dump_id for m in other.source.manifests()]
        for dump_id in rnd.sample(dumps, len(dumps)):
            shuffled.land(other.source, dump_id)
        rows = built(in_order)
        assert_frame_equal(rows, built(shuffled))
        assert {(e, u) for e, u in rows.select("event_id", "user_id").iter_rows()} == expected_rows(history)
        per_day = rows.group_by(pl.col("time").dt.date(), "event_id", "user_id").len()
        assert per_day["len"].max() in (None, 1)
    finally:
        shutil.rmtree(folder)


@settings(max_examples=12, deadline=None, phases=QUICK)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.sampled_from("ab")), max_size=5),
        min_size=1,
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_users_fold_to_the_newest_modification_in_any_order(dumps: Any, rnd: random.Random) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        bucket = Bucket(folder / "bucket")
        for number, rows in enumerate(dumps):
            people = [user(i, f"2026-02-0{day} 00:00:00", email=email) for i, day, email in rows]
            bucket.dump(number + 9, f"2026-03-{number + 5:02d}T02:00:00", users=people)
        in_order, shuffled = landing_in(folder / "in-order"), landing_in(folder / "shuffled")
        land_all(in_order, bucket)
        ids = [m.dump_id for m in bucket.source.manifests()]
        for dump_id in rnd.sample(ids, len(ids)):
            shuffled.land(bucket.source, dump_id)
        one, other = (
            build_users(landing, date(2026, 3, 20), ["email"]).frame.collect() for landing in (in_order, shuffled)
        )
        assert_frame_equal(one, other)
        newest: dict[int, tuple[int, int, str]] = {}
        for number, rows in enumerate(dumps):
            for i, day, email in rows:
                newest[i] = max(newest.get(i, (0, 0, "")), (day, number, email))
        assert dict(one.select("user_id", "email").iter_rows()) == {i: n[2] for i, n in newest.items()}
    finally:
        shutil.rmtree(folder)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.integers(1, 12), st.integers(1, 12), max_size=12))
def test_migrations_are_followed_to_their_ends(moves: dict[int, int]) -> None:
    frame = pl.DataFrame(
        {
            "from_user_id": list(moves),
            "to_user_id": list(moves.values()),
            "time": [datetime(2026, 1, 1, tzinfo=UTC)] * len(moves),
        },
        schema={"from_user_id": pl.Int64, "to_user_id": pl.Int64, "time": pl.Datetime("us", "UTC")},
    )
    found = {row["from_user_id"]: row for row in resolved(frame).iter_rows(named=True)}
    assert found.keys() == moves.keys()
    for start in moves:
        seen, at = [], start
        while at in moves and at not in seen and moves[at] != at:
            seen.append(at)
            at = moves[at]
        circle = at in seen
        end = min(seen[seen.index(at) :]) if circle else at
        assert (found[start]["resolved_to"], found[start]["cycle"]) == (end, circle)


def test_a_changed_target_is_taken_from_the_newest_snapshot(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", user_migrations=[migration(1, 2), migration(5, 6)])
    bucket.dump(2, "2026-03-03T02:00:00", user_migrations=[migration(1, 3), migration(1, 4, "2026-02-01 00:00:00")])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    rows = build_user_migrations(landing, MARCH_2).frame.collect()
    assert rows.select("from_user_id", "to_user_id").rows() == [(1, 3)]
    assert build_user_migrations(landing, MARCH_1).frame.collect()["from_user_id"].to_list() == [1, 5]


def test_a_day_whose_inputs_did_not_change_is_not_written(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")])
    landing, lake = landing_in(tmp_path / "lake"), Lake.open(str(tmp_path / "lake"))
    land_all(landing, bucket)

    def status(day: date) -> Status:
        rows = build_event_day(landing, "a", day)
        return lake.write("heap/events/a", day.isoformat(), rows.frame, rows.inputs, notes=rows.notes).status

    assert [status(MARCH_1), status(MARCH_1)] == [Status.WRITTEN, Status.UNCHANGED]
    bucket.dump(2, "2026-03-03T02:00:00", a=[event(2, "2026-03-02 10:00:00")])
    land_all(landing, bucket)
    assert status(MARCH_1) is Status.UNCHANGED
    bucket.dump(3, "2026-03-04T02:00:00", a=[event(3, "2026-03-01 10:00:00")])
    land_all(landing, bucket)
    assert status(MARCH_1) is Status.WRITTEN
    bucket.dump(4, "2026-03-05T02:00:00", full=["a"], a=[event(9, "2026-03-02 10:00:00")])
    land_all(landing, bucket)
    assert status(MARCH_1) is Status.WRITTEN
    landing.reset("a")
    land_all(landing, bucket)
    assert status(MARCH_1) is Status.UNCHANGED


def test_a_file_broken_later_takes_nothing_away(tmp_path: Path) -> None:
    bucket, clock = Bucket(tmp_path / "bucket"), Clock()
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")])
    landing = landing_in(tmp_path / "lake", clock=clock)
    land_all(landing, bucket)
    good = bucket.file(1, "a").read_bytes()
    bucket.file(1, "a").write_bytes(b"broken")
    (report,) = land_all(landing, bucket)
    assert [t.table for t in report.failed] == ["a"]
    rows = build_event_day(landing, "a", MARCH_1)
    assert rows.frame.collect().height == 1
    assert rows.notes["failed"] != {}
    bucket.file(1, "a").write_bytes(good)
    (report,) = land_all(landing, bucket)
    assert report.failed == []
    assert build_event_day(landing, "a", MARCH_1).notes["failed"] == {}


def test_a_late_dump_older_than_the_resync_changes_nothing(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(2, "2026-03-03T02:00:00", full=["a"], a=[event(1, "2026-03-02 10:00:00")])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(5, "2026-03-01 10:00:00")])
    (report,) = land_all(landing, bucket)
    assert report.touched == {}
    assert build_event_day(landing, "a", MARCH_1).frame.collect().height == 0


def test_rows_ahead_wait_for_their_day(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-03 01:00:00")])
    landing = landing_in(tmp_path / "lake", start=START)
    (report,) = land_all(landing, bucket)
    assert report.tables[0].counts.ahead == 1
    day = build_event_day(landing, "a", MARCH_3)
    assert (day.frame.collect().height, day.notes["complete"]) == (1, False)
    assert build_event_day(landing, "a", MARCH_1).notes["complete"] is True


def test_many_dumps_are_compared_through_few_files(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    for number in range(30):
        day = date(2026, 3, 1) + timedelta(days=number // 2)
        again = event(1, f"{day} 11:00:00")  # the same event moves with every dump
        moment = f"{day + timedelta(days=1)}T{number % 2:02d}:00:00"
        bucket.dump(number + 1, moment, a=[event(number + 100, f"{day} 10:00:00"), again])
    landing = landing_in(tmp_path / "lake")
    reports = land_all(landing, bucket)
    assert [r.tables[0].counts.new for r in reports] == [2] + [1] * 29
    assert len(list((tmp_path / "lake").rglob("_seen/*.parquet"))) <= 9
    days = [MARCH_1 + timedelta(days=i) for i in range(15)]
    found = [build_event_day(landing, "a", day).frame.collect()["event_id"].to_list() for day in days]
    assert [1 in ids for ids in found] == [False] * 14 + [True]
    assert sum(len(ids) for ids in found) == 31


def test_a_newer_full_delivery_of_the_same_day_is_no_stale_writer(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    landing, lake = landing_in(tmp_path / "lake"), Lake.open(str(tmp_path / "lake"))
    for number, full in enumerate((False, True, True)):
        brought = {"a": [event(number, f"2026-03-0{number + 1} 10:00:00")], "users": [user(number)]}
        bucket.dump(
            number + 1,
            f"2026-03-02T0{number}:00:00",
            full=["user_migrations", *(["a", "users"] if full else [])],
            user_migrations=[migration(number + 1, 9)],
            **brought,
        )
        land_all(landing, bucket)
        if number == 2:
            landing.reset("users")
            land_all(landing, bucket)
        for name, rows in {
            "a": build_event_day(landing, "a", MARCH_1),
            "users": build_users(landing, MARCH_1),
            "user_migrations": build_user_migrations(landing, MARCH_1),
        }.items():
            assert lake.write(name, "2026-03-01", rows.frame, rows.inputs).status is Status.WRITTEN
    assert pl.read_parquet(lake.uri("user_migrations", "2026-03-01"))["from_user_id"].to_list() == [3]


def test_a_large_day_in_slices_is_the_day_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, rnd = Bucket(tmp_path / "bucket"), random.Random(3)
    for number in (1, 2):
        rows = [
            event(
                rnd.randrange(400),
                f"2026-03-01 {rnd.randrange(24):02d}:{rnd.randrange(60):02d}:00",
                rnd.randrange(3),
                plan=f"{i}",
            )
            for i in range(300)
        ]
        bucket.dump(number, f"2026-03-02T0{number}:00:00", a=rows)
    landing, lake = landing_in(tmp_path / "lake"), Lake.open(str(tmp_path / "lake"))
    land_all(landing, bucket)
    at_once = build_event_day(landing, "a", MARCH_1).frame.collect()
    monkeypatch.setattr(tables, "day_rows", lambda *rest: day_rows(*rest, slice_rows=50))
    sliced = build_event_day(landing, "a", MARCH_1)
    lake.write("a", "2026-03-01", sliced.frame, sliced.inputs)
    assert_frame_equal(lake.scan("a", "2026-03-01").collect(), at_once)
    assert (
        sliced.frame.filter(pl.col("user_id") == 1)
        .select("plan")
        .head(3)
        .collect()
        .equals(at_once.filter(pl.col("user_id") == 1).select("plan").head(3))
    )
