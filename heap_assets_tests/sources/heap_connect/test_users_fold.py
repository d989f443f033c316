"""Users begun from an earlier day are the users folded from all dumps, whatever dumps come in whatever order."""

from __future__ import annotations

import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from dump_builders import Bucket, event, land_all, landing_in, migration, user
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from heap_assets.errors import HeapAssetsError, MissingInputError
from heap_assets.sources.heap_connect import build_user_migrations, build_users, snapshots
from heap_assets.storage import Lake, Status
from heap_assets_tests.examples import examples

FIRST = date(2026, 3, 1)
USERS = st.lists(
    st.builds(
        lambda number, hour, email: user(number, f"2026-03-01 {hour:02d}:00:00", email=email),
        st.integers(1, 4),
        st.integers(0, 3),
        st.sampled_from(["a", "b", "c"]),
    ),
    min_size=1,
    max_size=4,
)
DUMPS = st.lists(
    st.fixed_dictionaries(
        {
            "users": USERS,
            "full": st.sampled_from([False, False, False, True]),
            "moved": st.booleans(),
            "more": st.sampled_from([None, None, "x", 7]),
            "late": st.booleans(),
        }
    ),
    min_size=2,
    max_size=5,
)


@settings(deadline=None, max_examples=examples(25), suppress_health_check=[HealthCheck.too_slow])
@given(dumps=DUMPS)
def test_users_begun_from_an_earlier_day_are_users_folded_from_all_dumps(dumps: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        bucket = Bucket(Path(scratch) / "bucket")
        landing, lake = landing_in(Path(scratch) / "lake"), Lake.open(f"{scratch}/lake")
        # a late dump carries an early number and comes when all others have landed
        order = sorted(range(len(dumps)), key=lambda i: (dumps[i]["late"], i))
        for i in order:
            _write(bucket, i, dumps[i])
            land_all(landing, bucket)
            for day in (FIRST + timedelta(days=k) for k in range(i, len(dumps))):
                begun = build_users(landing, day, lake=lake)
                lake.write("heap/users", day.isoformat(), begun.frame, begun.inputs)
                assert_frame_equal(lake.scan("heap/users", day.isoformat()), build_users(landing, day).frame)


def test_only_what_is_new_is_folded(tmp_path: Path, monkeypatch: Any) -> None:
    bucket = Bucket(tmp_path / "bucket")
    for i in range(3):
        _write(bucket, i, {"users": [user(i + 1, email="a")], "full": False, "moved": False, "more": None})
    landing, lake = landing_in(tmp_path / "lake"), Lake.open(str(tmp_path / "lake"))
    land_all(landing, bucket)
    second = build_users(landing, FIRST + timedelta(days=1), lake=lake)
    lake.write("heap/users", "2026-03-02", second.frame, second.inputs)
    read: list[str] = []
    scan_part = snapshots.scan_part
    monkeypatch.setattr(snapshots, "scan_part", lambda *rest: read.append(rest[1]) or scan_part(*rest))
    users = build_users(landing, FIRST + timedelta(days=2), lake=lake).frame.collect()
    assert users["user_id"].to_list() == [1, 2, 3]
    assert [key.split("/")[2] for key in read] == ["3"]


def test_a_damaged_day_is_not_begun_from(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    for i in range(2):
        _write(bucket, i, {"users": [user(i + 1, email="a")], "full": False, "moved": False, "more": None})
    landing, lake = landing_in(tmp_path / "lake"), Lake.open(str(tmp_path / "lake"))
    land_all(landing, bucket)
    first = build_users(landing, FIRST, lake=lake)
    lake.write("heap/users", str(FIRST), first.frame, first.inputs)
    path = tmp_path / "lake" / "heap" / "users" / f"{FIRST}.parquet"
    whole = path.read_bytes()
    for content in (whole[:20] + bytes([whole[20] ^ 1]) + whole[21:], whole[:-9], b""):
        path.write_bytes(content)
        users = build_users(landing, FIRST + timedelta(days=1), lake=lake).frame.collect()
        assert users["user_id"].to_list() == [1, 2]


def _write(bucket: Bucket, number: int, dump: dict[str, Any]) -> None:
    more = {} if dump["more"] is None else {"plan": dump["more"]}
    tables: dict[str, Any] = {"users": [{**row, **more} for row in dump["users"]]}
    if dump["moved"]:
        tables["user_migrations"] = [migration(number + 1, 9)]
    full = ("users", "user_migrations") if dump["full"] else ("user_migrations",)
    written = FIRST + timedelta(days=number + 1)
    bucket.dump(number + 1, f"{written}T02:00:00", full=full, **tables)


def test_migrations_that_no_manifest_lists_are_none_and_users_are_waited_for(tmp_path: Path) -> None:
    bucket, landing = Bucket(tmp_path / "bucket"), landing_in(tmp_path / "lake")
    with pytest.raises(MissingInputError):
        build_user_migrations(landing, FIRST)  # nothing has landed yet
    bucket.dump(1, f"{FIRST + timedelta(days=1)}T02:00:00", signup=[event(1, f"{FIRST} 10:00:00")])
    bucket.manifest(9, f"{FIRST + timedelta(days=1)}T02:30:00", "no JSON")
    land_all(landing, bucket)
    assert build_user_migrations(landing, FIRST).frame.collect().is_empty(), (
        "a manifest that nobody can read says nothing"
    )
    with pytest.raises(MissingInputError, match="users is in no dump"):
        build_users(landing, FIRST)
    lake = Lake.open(str(tmp_path / "lake"))
    built = build_user_migrations(landing, FIRST)
    lake.write("heap/user_migrations", str(FIRST), built.frame, built.inputs)
    bucket.dump(2, f"{FIRST + timedelta(days=1)}T03:00:00", user_migrations=[migration(1, 2)])
    land_all(landing, bucket)
    built = build_user_migrations(landing, FIRST)
    assert lake.write("heap/user_migrations", str(FIRST), built.frame, built.inputs).status is Status.WRITTEN
    assert lake.scan("heap/user_migrations", str(FIRST)).collect()["resolved_to"].to_list() == [2]


def test_migrations_that_could_not_land_are_waited_for(tmp_path: Path) -> None:
    bucket, landing = Bucket(tmp_path / "bucket"), landing_in(tmp_path / "lake")
    rows = {"signup": [event(1, f"{FIRST} 10:00:00")], "user_migrations": [migration(1, 2)]}
    bucket.dump(1, f"{FIRST + timedelta(days=1)}T02:00:00", **rows)
    bucket.file(1, "user_migrations").write_bytes(b"no Avro")
    land_all(landing, bucket)
    with pytest.raises(HeapAssetsError, match="user_migrations has not landed"):
        build_user_migrations(landing, FIRST)
