"""Events, users and migrations from files that no Heap Connect wrote, by the rules of dumps."""

from __future__ import annotations

import gzip
import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import fastavro
import polars as pl
import pytest

from heap_assets import clock
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.pipelines.readiness import unbuilt_people
from heap_assets.pipelines.waiting import waits
from heap_assets.project import Project, parse_settings
from heap_assets.sources.heap_connect import (
    Catalogue,
    DumpReport,
    build_event_day,
    build_user_migrations,
    build_users,
    discover,
    first_day,
    preflight,
    rows_set_aside,
)
from heap_assets.sources.heap_connect.config import Selection
from heap_assets.sources.heap_connect.file_formats import FORMATS
from heap_assets.storage import Lake
from heap_assets.tables import MIGRATIONS, USERS
from heap_assets_tests.s3_server import s3_server

DAY = date(2026, 11, 20)
WRITTEN = datetime(2026, 11, 21, 1, tzinfo=UTC)
TABLES = """
      signup:
        files: signup/*
        columns: {event_id: id, user_id: uid, time: ts}
        types: {amount: number, seats: integer, vip: boolean, since: date}
      stream: {files: "stream/*", event_column: name, hashed: [event_id, user_id]}
      users: {files: users/*, columns: {user_id: uid}}
      user_migrations: {files: moves/*}
"""
ROWS = [
    {
        "id": 1,
        "uid": 10,
        "ts": "2026-11-20T10:00:00Z",
        "amount": "2.5",
        "seats": "3",
        "vip": "yes",
        "since": "2026-01-02",
    },
    {"id": 2, "uid": 20, "ts": "2026-11-20 23:59:59.5", "amount": "x", "seats": None, "vip": "no", "since": None},
    {"id": 2, "uid": 20, "ts": "2026-11-20 23:59:59.5", "amount": "x", "seats": None, "vip": "no", "since": None},
]


def project_of(folder: Path, place: str = "path: ./exports", tables: str = TABLES) -> Project:
    text = f"""
start_date: 2026-01-01
lake: ./lake
heap:
  app_id: "1"
  source:
    kind: files
    {place}
    tables:{tables}
identity: {{identifiers: [{{type: heap_user_id, shared_above: 1}}]}}
"""
    settings = parse_settings(text, folder / "heap_assets.yaml")
    return Project(settings, Catalogue(), Lake.open(settings.lake.url))


def put(folder: Path, name: str, content: bytes | str, at: datetime = WRITTEN) -> Path:
    path = folder / "exports" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(path, (at.timestamp(), at.timestamp()))
    return path


def encoded(form: str, rows: list[dict[str, Any]]) -> bytes:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    if form == "csv":
        return frame.write_csv().encode()
    if form == "jsonl":
        return gzip.compress("\n".join(map(json.dumps, rows)).encode())
    path = Path(os.environ["FILES_SCRATCH"]) / f"rows.{form}"
    if form == "parquet":
        frame.write_parquet(path)
    else:
        fields = [
            {"name": n, "type": ["null", "long" if t.is_integer() else "string"]} for n, t in frame.schema.items()
        ]
        with path.open("wb") as file:
            fastavro.writer(file, {"type": "record", "name": "r", "fields": fields}, rows)
    return path.read_bytes()


def land(project: Project) -> list[DumpReport]:
    source = project.source()
    return [project.landing.land(source, dump) for dump in project.landing.pending(source)]


def events(project: Project, table: str = "signup", day: date = DAY) -> pl.DataFrame:
    return build_event_day(project.landing, table, day, None).frame.collect().sort("event_id")


@pytest.mark.parametrize("form", FORMATS)
def test_names_and_types_are_those_of_the_settings_whatever_the_format(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILES_SCRATCH", str(tmp_path))
    put(tmp_path, f"signup/1.{form}{'.gz' if form == 'jsonl' else ''}", encoded(form, ROWS))
    project = project_of(tmp_path)
    [report] = land(project)
    found = events(project)
    assert found.select("event_id", "user_id", "time", "amount", "seats", "vip", "since").rows() == [
        (1, 10, datetime(2026, 11, 20, 10, tzinfo=UTC), 2.5, 3, True, date(2026, 1, 2)),
        (2, 20, datetime(2026, 11, 20, 23, 59, 59, 500000, UTC), None, None, False, None),
    ], "a repeated row is one"
    [record] = project.landing.records().values()
    assert record.tables["signup"].lost == {"amount": 2}, "values of no such type are counted"
    assert [table.table for table in report.tables] == ["signup"]
    assert land(project) == [], "a second time there is nothing to do"


def test_a_row_without_an_id_or_a_line_that_is_none_is_set_aside_and_the_others_land(tmp_path: Path) -> None:
    lines = ["id,uid,ts,plan", "1,10,2026-11-20,pro", "x,10,2026-11-20,pro", "3,10,soon,pro", "4,10,2026-11-20,a,b,c"]
    put(tmp_path, "signup/1.csv", "\n".join(lines))
    put(tmp_path, "signup/2.jsonl", '{"id": 5, "uid": 1, "ts": "2026-11-20"}\n{"id": \n[1]\n')
    project = project_of(tmp_path)
    land(project)
    assert events(project)["event_id"].to_list() == [1, 5]
    reasons = rows_set_aside(project.landing, "signup")["reason"].to_list()
    assert sorted(reasons) == ["event_id is missing"] * 3 + ["event_id is not an id", "time is not a time"]


def test_late_rows_go_to_their_day_and_a_later_file_replaces_an_event(tmp_path: Path) -> None:
    put(tmp_path, "signup/1.csv", "id,uid,ts,plan\n1,10,2026-11-20,free\n")
    project = project_of(tmp_path)
    land(project)
    put(
        tmp_path,
        "signup/2.csv",
        "id,uid,ts,plan\n2,10,2026-11-20,late\n1,10,2026-11-20,pro\n",
        WRITTEN + timedelta(days=3),
    )
    [report] = land(project)
    assert report.touched == {"signup": {DAY}}
    assert events(project).select("event_id", "plan").rows() == [(1, "pro"), (2, "late")]


def test_a_file_that_changes_lands_again_whole_under_its_own_number(tmp_path: Path) -> None:
    put(tmp_path, "signup/1.csv", "id,uid,ts\n1,10,2026-11-20\n2,10,2026-11-20\n")
    project = project_of(tmp_path)
    land(project)
    [number] = project.landing.records()
    put(tmp_path, "signup/1.csv", "id,uid,ts\n1,10,2026-11-20\n", WRITTEN + timedelta(hours=1))
    land(project)
    assert list(project.landing.records()) == [number]
    assert events(project)["event_id"].to_list() == [1]


def test_columns_that_are_mapped_anew_land_again(tmp_path: Path) -> None:
    put(tmp_path, "signup/1.csv", "id,uid,ts,other\n1,10,2026-11-20,11\n")
    land(project_of(tmp_path))
    project = project_of(tmp_path, tables=TABLES.replace("user_id: uid, time: ts}", "user_id: other, time: ts}", 1))
    land(project)
    assert events(project)["user_id"].to_list() == [11]


def test_a_stream_of_events_is_a_table_for_each_name_and_texts_are_ids_by_their_hash(tmp_path: Path) -> None:
    rows = [
        {"event_id": "a-1", "user_id": "ann", "time": 1_795_168_800, "name": "Signed Up", "plan": {"n": [1]}},
        {"event_id": "a-2", "user_id": "bob", "time": "2026-11-20T10:00:00+01:00", "name": "Page View", "n": 1},
        {"event_id": "a-3", "user_id": "ann", "time": "2026-11-20T10:00:00+01:00", "name": "Signed Up", "n": 1.5},
    ]
    put(tmp_path, "stream/2026.jsonl", "\n".join(map(json.dumps, rows)))
    project = project_of(tmp_path)
    source = project.source()
    assert discover(source, Selection(), Catalogue()).tables["table"].to_list() == ["page_view", "signed_up"]
    assert first_day(source, Selection()) == DAY
    land(project)
    signed_up, viewed = events(project, "signed_up"), events(project, "page_view")
    assert (signed_up.height, viewed.height) == (2, 1)
    assert signed_up["user_id"].n_unique() == 1
    assert signed_up["event_id"].n_unique() == 2
    assert signed_up["plan"].drop_nulls().to_list() == ['{"n":[1]}']
    assert signed_up["n"].drop_nulls().to_list() == [1.5]


def test_users_are_folded_and_a_file_of_migrations_is_all_there_are(tmp_path: Path) -> None:
    put(tmp_path, "users/1.csv", "uid,email,last_modified\n1,a@x,2026-11-01\n2,b@x,2026-11-01\n")
    put(tmp_path, "moves/1.csv", "from_user_id,to_user_id,time\n1,2,2026-11-01\n3,2,2026-11-01\n")
    project = project_of(tmp_path)
    land(project)
    put(tmp_path, "users/2.csv", "uid,email,last_modified\n1,new@x,2026-11-21\n", WRITTEN + timedelta(days=1))
    put(tmp_path, "moves/2.csv", "from_user_id,to_user_id,time\n1,2,2026-11-01\n", WRITTEN + timedelta(days=1))
    land(project)
    day = DAY + timedelta(days=1)
    users = build_users(project.landing, day, None).frame.collect().sort("user_id")
    assert users.select("user_id", "email", "migrated_to").rows() == [(1, "new@x", 2), (2, "b@x", None)]
    assert build_user_migrations(project.landing, day).frame.collect()["from_user_id"].to_list() == [1]


def test_a_file_that_is_damaged_stops_itself_alone_and_says_why(tmp_path: Path) -> None:
    put(tmp_path, "signup/1.parquet", b"PAR1 no")
    put(tmp_path, "signup/2.csv", "id,who,ts\n1,10,2026-11-20\n")
    put(tmp_path, "signup/3.csv", "id,uid,ts\n1,10,2026-11-20\n")
    put(tmp_path, "signup/_SUCCESS", "")
    project = project_of(tmp_path)
    failures = [t.failure.reason for report in land(project) for t in report.tables if t.failure]
    assert len(failures) == 2
    assert any("no whole Parquet file" in reason for reason in failures)
    assert any("no column uid, which heap.source.tables.signup.columns.user_id names" in reason for reason in failures)
    assert events(project)["event_id"].to_list() == [1]


def test_files_of_a_bucket_land_as_those_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with s3_server() as options:
        client = boto3.client("s3", endpoint_url=options["aws_endpoint_url"], region_name="us-east-1")
        client.create_bucket(Bucket="company-exports")
        now = datetime.now(UTC)
        body = f"id,uid,ts\n1,10,{now:%Y-%m-%d}\n"
        client.put_object(Bucket="company-exports", Key="heap/signup/1.csv", Body=body.encode())
        client.put_object(Bucket="company-exports", Key="other/signup/1.csv", Body=b"id,uid,ts\n")
        place = f"bucket: company-exports\n    prefix: heap\n    endpoint_url: {options['aws_endpoint_url']}"
        project = project_of(tmp_path, place)
        assert all(step.passed for step in preflight(project.source()))
        assert len(land(project)) == 1
        assert events(project, day=now.date())["event_id"].to_list() == [1]
        assert land(project) == []


@pytest.mark.parametrize(
    ("place", "tables", "message"),
    [
        ("path: ./x\n    bucket: b", TABLES, "one of path"),
        ("path: ./x", "\n      users: {files: u, event_column: n}", "tables.users has no events"),
        ("path: ./x", "\n      signup: {files: u, hashed: [plan]}", "hashed names 'plan'; expected: event_id"),
        ("path: ./x", "\n      signup: {files: u, types: {a: int}}", "types"),
        ("bucket: s3://x", TABLES, "a bucket name only"),
    ],
)
def test_a_mistake_in_the_settings_is_told(place: str, tables: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        project_of(tmp_path, place, tables)


def test_tables_that_no_files_are_named_for_are_built_without_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(clock.VARIABLE, WRITTEN.isoformat())
    put(tmp_path, "signup/1.csv", "id,uid,ts\n1,10,2026-11-20T10:00:00Z\n")
    tables = "\n      signup: {files: signup/*, columns: {event_id: id, user_id: uid, time: ts}}"
    without = project_of(tmp_path, tables=tables)
    land(without)
    assert unbuilt_people(without) == {USERS: {DAY}, MIGRATIONS: {DAY}}
    assert not [wait for wait in waits(without) if wait.asset in (USERS, MIGRATIONS)]
    users, migrations = build_users(without.landing, DAY).frame, build_user_migrations(without.landing, DAY).frame
    assert users.collect().is_empty()
    assert migrations.collect().is_empty()
    assert {"user_id", "identity", "email", "migrated_to"} <= set(users.collect_schema())
    named = project_of(tmp_path)
    with pytest.raises(MissingInputError, match="users is in no dump"):
        build_users(named.landing, DAY)
