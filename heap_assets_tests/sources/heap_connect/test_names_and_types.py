"""A customer's columns may be called like anything of ours, and be of any type: they arrive, and stop nothing else."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from avro_builders import COMPRESS, avro_file, long, record, text
from dump_builders import START, Bucket, event, land_all, landing_in, migration, user, write_avro

from heap_assets.sources.heap_connect import (
    Landing,
    LandingConfig,
    Limits,
    build_event_day,
    build_user_migrations,
    build_users,
)
from heap_assets.storage import Store

MARCH_1, MARCH_2 = date(2026, 3, 1), date(2026, 3, 2)
UNTIL = {"type": "long", "logicalType": "timestamp-micros"}
OURS = ("_day", "_dump", "_filled", "_hash", "_version", "_other", "day", "dump", "rows", "row", "n", "key", "v")


def rows_of(landing: Landing, table: str, day: date = MARCH_1) -> pl.DataFrame:
    return build_event_day(landing, table, day).frame.collect()


@pytest.mark.parametrize("name", ["to_user_id", "from_user_id", "joindate", "last_modified"])
def test_ids_and_times_of_one_table_are_custom_properties_in_another(tmp_path: Path, name: str) -> None:
    bucket = Bucket(tmp_path / "bucket")
    own = {name: "acct-9"}
    bucket.dump(
        1,
        "2026-03-02T02:00:00",
        gift=[event(1, "2026-03-01 10:00:00", **own), event(2, "2026-03-01 11:00:00", **{name: "007"})],
        users=[user(1, **(own if name.endswith("_id") else {}))],
    )
    landing = landing_in(tmp_path / "lake")
    (report,) = land_all(landing, bucket)
    assert [t.counts.rejected for t in report.tables] == [0, 0]
    assert rows_of(landing, "gift")[name].to_list() == ["acct-9", "007"]
    users = build_users(landing, MARCH_1).frame.collect()
    assert users.height == 1
    if name.endswith("_id"):
        assert users[name].to_list() == ["acct-9"]


def test_a_time_or_event_id_of_users_is_theirs(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    more = {"time": "soon", "event_id": "e1", "session_id": "s1"}
    bucket.dump(
        1, "2026-03-02T02:00:00", users=[user(1, **more)], user_migrations=[migration(1, 2) | {"event_id": "x"}]
    )
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    assert build_users(landing, MARCH_1).frame.collect().select(*more).row(0, named=True) == more
    assert build_user_migrations(landing, MARCH_1).frame.collect()["resolved_to"].to_list() == [2]


def test_columns_called_like_ours_arrive(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    for dump, hour in ((1, 2), (2, 3)):
        own = {name: f"{name} {dump}" for name in OURS}
        twice = [event(1, "2026-03-01 10:00:00", **own), event(1, "2026-03-01 10:00:00", **own)]
        moved = event(5, f"2026-03-0{dump} 10:00:00", **own)
        bucket.dump(dump, f"2026-03-02T0{hour}:00:00", gift=[*twice, moved], users=[user(1, **own)])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    expected = {name: f"{name} 2" for name in OURS}
    assert rows_of(landing, "gift").select("event_id", *OURS).rows(named=True) == [{"event_id": 1, **expected}]
    assert rows_of(landing, "gift", MARCH_2).select("event_id", *OURS).rows(named=True) == [{"event_id": 5, **expected}]
    assert build_users(landing, MARCH_2).frame.collect().select(OURS).rows(named=True) == [expected]


def test_a_column_without_any_value_is_null_until_it_has_some(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(
        1,
        "2026-03-02T02:00:00",
        odd=[[event(1, "2026-03-01 10:00:00", v=None)], [event(2, "2026-03-01 11:00:00", v="x")]],
        plain=[event(3, "2026-03-01 10:00:00")],
    )
    write_avro(bucket.file(1, "odd"), [event(1, "2026-03-01 10:00:00", v=None)], kinds={"v": "null"})
    bucket.dump(2, "2026-03-02T03:00:00", odd=[event(4, "2026-03-01 12:00:00", v=None)], users=[user(1, w=None)])
    write_avro(bucket.file(2, "odd"), [event(4, "2026-03-01 12:00:00", v=None)], kinds={"v": ["null"]})
    write_avro(bucket.file(2, "users"), [user(1, w=None)], kinds={"w": "null"})
    landing = landing_in(tmp_path / "lake")
    reports = land_all(landing, bucket)
    assert [report.failed for report in reports] == [[], []]
    assert rows_of(landing, "odd").select("event_id", "v").rows() == [(1, None), (2, "x"), (4, None)]
    assert rows_of(landing, "plain").height == 1
    users = build_users(landing, MARCH_1).frame.collect()
    assert users.schema["w"] == pl.String
    assert users["w"].to_list() == [None]


def test_values_that_no_type_holds_are_counted_with_table_and_column(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")])
    kinds = {"event_id": "long", "user_id": "long", "time": "string", "until": UNTIL}
    row = long(1) + long(1) + text("2026-03-01 10:00:00")
    blocks = [(2, row + long(0) + long(2) + row[1:] + long(2**62)), (1, long(3) + row[1:] + long(-(2**62)))]
    avro_file(bucket.file(1, "a"), record(kinds), blocks)
    landing = landing_in(tmp_path / "lake")
    (report,) = land_all(landing, bucket)
    assert [(t.failure, t.lost) for t in report.tables] == [(None, {"until": 2})]
    built = build_event_day(landing, "a", MARCH_1)
    assert (built.notes["values_lost"], built.notes["values_lost_in"]) == (2, {"until": 2})
    assert built.frame.collect()["until"].to_list() == [datetime(1970, 1, 1, tzinfo=UTC), None, None]
    assert landing.reports()["values_lost"].to_list() == [2]


def test_a_file_beyond_the_limits_ends_its_table_alone(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")], b=[event(2, "2026-03-01 10:00:00")])
    avro_file(bucket.file(1, "a"), record({"x": "string"}), [(1, COMPRESS["bzip2"](bytes(8 << 20)))], "bzip2")
    config = LandingConfig(start_date=START, limits=Limits(block_bytes=1 << 20))
    landing = Landing(Store(str(tmp_path / "lake")), config)
    (report,) = land_all(landing, bucket)
    (failed,) = report.failed
    assert failed.failure is not None
    assert re.match(r"s3://.*/a/part-.*\.avro, block 0: it becomes larger than 1 MB", failed.failure.summary)
    assert rows_of(landing, "b").height == 1
