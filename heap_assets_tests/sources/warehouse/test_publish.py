"""Published tables hold what the lake holds: replaced whole by day, never loaded twice, refused with the reason."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import httpx
import polars as pl
import pytest
from adbc_driver_postgresql import dbapi
from google.cloud import bigquery as gcp

from heap_assets.sources.heap_bigquery.events_table import COLUMNS, PUBLICATION, events_table
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.evolution import evolved
from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher, destination, load_config, new_table
from heap_assets.sources.warehouse.bigquery.types import schema_of
from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
from heap_assets.sources.warehouse.publish import (
    Preview,
    Publication,
    Publisher,
    PublishError,
    PublishStatus,
    table_name,
)
from heap_assets.sources.warehouse.publish_log import PublishLog
from heap_assets.sources.warehouse.resolved_views import ResolvedOn
from heap_assets.storage import Store
from heap_assets_tests.storage.test_object_stores import gcs_server

MONDAY, TUESDAY = date(2026, 11, 2), date(2026, 11, 3)
PEOPLE = Publication("people", description="Who", descriptions={"id": "Key", "city": 'Where "now"'}, cluster_by=("id",))


@dataclass(frozen=True)
class Target:
    publisher: Publisher
    query: Callable[[str], list[tuple[Any, ...]]]
    change: Callable[[str], object]
    prefix: str
    spelled: str


@pytest.fixture(params=["bigquery", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    store = Store(str(tmp_path / "lake"))
    if request.param == "bigquery":
        emulator = request.getfixturevalue("bigquery_emulator")
        account = BigQueryAccount("demo", endpoint=emulator.rest, storage_endpoint=emulator.grpc)
        dataset = f"pub_{uuid4().hex[:8]}"
        with account.client() as client:
            client.create_dataset(dataset)

            def ask(text: str) -> list[tuple[Any, ...]]:
                return [tuple(row.values()) for row in client.query(text).result()]

            spelled = f"BigQueryPublisher({account!r}, {dataset!r}, STORE)"
            yield Target(BigQueryPublisher(account, dataset, store), ask, ask, dataset, spelled)
            client.delete_dataset(dataset, delete_contents=True)
        return
    uri = request.getfixturevalue("postgres")
    with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:

        def ask_postgres(text: str) -> list[tuple[Any, ...]]:
            cursor.execute(text)
            return [tuple(row) for row in cursor.fetchall()]

        spelled = f"PostgresPublisher({uri!r}, 'pub', STORE)"
        yield Target(PostgresPublisher(uri, "pub", store), ask_postgres, cursor.execute, "pub", spelled)


def people(*ids: int, **columns: Any) -> pl.LazyFrame:
    return pl.LazyFrame({"id": list(ids)}, schema={"id": pl.Int64}).with_columns(
        **{name: pl.lit(value) if not isinstance(value, pl.Expr) else value for name, value in columns.items()}
    )


def test_a_day_is_replaced_whole_and_others_stay(target: Target) -> None:
    target.publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
    target.publisher.publish(PEOPLE, TUESDAY, people(3), "v1")
    published = target.publisher.publish(PEOPLE, MONDAY, people(4), "v2")
    assert (published.status, published.rows) == (PublishStatus.LOADED, 1)
    rows = target.query(f"SELECT partition_day, id FROM {target.prefix}.people ORDER BY id")
    assert rows == [(TUESDAY, 3), (MONDAY, 4)]


def test_an_equal_version_is_not_loaded_again(target: Target) -> None:
    target.publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
    again = target.publisher.publish(PEOPLE, MONDAY, people(99), "v1")
    assert (again.status, again.rows) == (PublishStatus.UNCHANGED, 2)
    forced = target.publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1", force=True)
    assert forced.status is PublishStatus.LOADED
    assert target.query(f"SELECT count(*) FROM {target.prefix}.people") == [(2,)]


def test_unchanged_is_said_of_a_target_that_holds_the_rows(target: Target) -> None:
    table, publish = f"{target.prefix}.people", target.publisher.publish
    for day in (MONDAY, TUESDAY):
        publish(PEOPLE, day, people(1, 2), "v1")
    for condition, a_row_is_there in (("AND id = 2", True), ("", False)):
        target.change(f"DELETE FROM {table} WHERE partition_day = DATE '2026-11-02' {condition}")
        assert (MONDAY in target.publisher.intact_days("people")) == (a_row_is_there and target.prefix == "pub")
        assert publish(PEOPLE, TUESDAY, people(1, 2), "v1").status is PublishStatus.UNCHANGED
        assert publish(PEOPLE, MONDAY, people(1, 2), "v1").status is PublishStatus.LOADED
        assert target.query(f"SELECT count(*) FROM {table}") == [(4,)]
        assert target.publisher.intact_days("people") == {MONDAY, TUESDAY}
    target.change(f"DROP TABLE {table}")
    assert target.publisher.intact_days("people") == set()
    assert target.publisher.newest_intact("people") is None
    assert publish(PEOPLE, MONDAY, people(1, 2), "v1").status is PublishStatus.LOADED
    assert target.publisher.newest_intact("people") == MONDAY
    assert target.publisher.newest_published("people") == TUESDAY


def test_what_a_postgres_was_restored_to_is_not_unchanged(postgres: str, tmp_path: Path) -> None:
    publisher = PostgresPublisher(postgres, "pub", Store(str(tmp_path / "lake")))
    publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
    publisher.publish(PEOPLE, TUESDAY, people(), "v1")
    assert publisher.intact_days("people") == {MONDAY, TUESDAY}
    with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE backup AS SELECT * FROM pub.people")
        publisher.publish(PEOPLE, MONDAY, people(3, 4), "v2")
        cursor.execute("VACUUM (FULL, FREEZE) pub.people")
        assert publisher.publish(PEOPLE, MONDAY, people(3, 4), "v2").status is PublishStatus.UNCHANGED
        cursor.execute("TRUNCATE pub.people")
        cursor.execute("INSERT INTO pub.people SELECT * FROM backup")
        assert publisher.intact_days("people") == {TUESDAY}
        assert publisher.publish(PEOPLE, MONDAY, people(3, 4), "v2").status is PublishStatus.LOADED
        cursor.execute("SELECT id FROM pub.people ORDER BY id")
        assert cursor.fetchall() == [(3,), (4,)]


def test_days_that_a_wider_column_rewrote_are_unchanged(target: Target) -> None:
    publish = target.publisher.publish
    publish(PEOPLE, MONDAY, people(1, plan=7), "v1")
    publish(PEOPLE, TUESDAY, people(2, plan=2.5), "v1")
    assert target.publisher.intact_days("people") == {MONDAY, TUESDAY}
    assert publish(PEOPLE, MONDAY, people(1, plan=7), "v1").status is PublishStatus.UNCHANGED
    assert publish(PEOPLE, TUESDAY, people(2, plan=2.5), "v1").status is PublishStatus.UNCHANGED


def test_a_load_of_a_release_that_kept_no_transaction_is_told_by_its_rows(target: Target, tmp_path: Path) -> None:
    target.publisher.publish(PEOPLE, MONDAY, people(1), "v1")
    [record] = (tmp_path / "lake" / "_published").rglob("2026-11-02.json")
    record.write_text(json.dumps({"version": "v1", "rows": 1, "at": "2026-11-03T06:00:00+00:00"}))
    assert target.publisher.publish(PEOPLE, MONDAY, people(1), "v1").status is PublishStatus.UNCHANGED
    record.write_text(json.dumps({"version": "v1", "rows": 2, "at": "2026-11-03T06:00:00+00:00"}))
    assert target.publisher.publish(PEOPLE, MONDAY, people(1), "v1").status is PublishStatus.LOADED


def test_an_empty_day_is_published_and_makes_the_table(target: Target) -> None:
    assert target.publisher.publish(PEOPLE, MONDAY, people(), "v1").rows == 0
    assert target.query(f"SELECT count(*) FROM {target.prefix}.people") == [(0,)]


def test_a_day_of_events_that_has_become_empty_is_emptied(target: Target) -> None:
    event = {"event_id": [1], "user_id": [1], "session_id": [1], "time": [datetime(2026, 11, 2, tzinfo=UTC)]}
    events = events_table({"signup": pl.LazyFrame(event)})
    target.publisher.publish(PUBLICATION, MONDAY, events, "v1")
    target.publisher.publish(PUBLICATION, TUESDAY, events, "v1")
    assert target.publisher.publish(PUBLICATION, MONDAY, events.head(0), "v2").rows == 0
    assert target.query(f"SELECT DISTINCT partition_day FROM {target.prefix}.events") == [(TUESDAY,)]


def test_a_table_without_days_is_replaced(target: Target) -> None:
    whole = Publication("whole", by_day=False)
    target.publisher.publish(whole, None, people(1, 2), "v1")
    target.publisher.publish(whole, None, people(3), "v2")
    assert target.query(f"SELECT id FROM {target.prefix}.whole") == [(3,)]


def test_a_new_column_is_added_and_a_missing_one_is_null(target: Target) -> None:
    target.publisher.publish(PEOPLE, MONDAY, people(1, plan="pro", seats=3), "v1")
    added = target.publisher.publish(PEOPLE, TUESDAY, people(2, city="Berlin", plan="team"), "v1")
    assert added.added_columns == ("city",)
    rows = target.query(f"SELECT id, plan, seats, city FROM {target.prefix}.people ORDER BY id")
    assert rows == [(1, "pro", 3, None), (2, "team", None, "Berlin")]


def test_a_type_that_narrows_is_refused_and_nothing_changes(target: Target) -> None:
    target.publisher.publish(PEOPLE, MONDAY, people(1, plan=7), "v1")
    with pytest.raises(PublishError, match=r"'plan'.*can only be widened"):
        target.publisher.publish(PEOPLE, MONDAY, people(2, plan="pro", other=1), "v2")
    assert target.query(f"SELECT id, plan FROM {target.prefix}.people") == [(1, 7)]
    assert target.publisher.publish(PEOPLE, MONDAY, people(1, plan=7), "v1").status is PublishStatus.UNCHANGED


def test_names_that_warehouses_refuse_become_names_that_they_take(target: Target) -> None:
    columns = {"Deal Stage": "x", "Plan": "y", "plan": "z", "partition_day": "w"}
    published = target.publisher.publish(PEOPLE, MONDAY, people(1, **columns), "v1")
    assert published.renamed == {
        "Deal Stage": "Deal_Stage",
        "plan": "plan_64879f",
        "partition_day": "property_partition_day",
    }
    names = "partition_day, Deal_Stage, plan_64879f, property_partition_day"
    if target.prefix == "pub":
        names = names.replace("Deal_Stage", '"Deal_Stage"')
    assert target.query(f"SELECT {names} FROM {target.prefix}.people") == [(MONDAY, "x", "z", "w")]


def test_values_arrive_as_they_are(target: Target) -> None:
    at = datetime(2026, 11, 2, 10, 0, 0, 123456, tzinfo=UTC)
    frame = pl.LazyFrame(
        {
            "text": ['a "quote"\nline, \\ and ü'],
            "moment": [at],
            "day": [MONDAY],
            "flag": [True],
            "amount": [Decimal("1.25")],
            "ratio": [0.1],
            "raw": [b"\x00\xff"],
            "tags": [["a", "b"]],
        },
        schema_overrides={"amount": pl.Decimal(12, 2), "moment": pl.Datetime("us", "UTC")},
    )
    target.publisher.publish(Publication("t"), MONDAY, frame, "v1")
    [row] = target.query(f"SELECT text, moment, day, flag, amount, ratio, raw, tags FROM {target.prefix}.t")
    assert (*row[:7], list(row[7])) == (*frame.collect().row(0)[:7], ["a", "b"]) or str(row[4]) == "1.25"
    assert row[1] == at


def test_structs_are_published(target: Target) -> None:
    frame = pl.LazyFrame({"id": [1, 2], "identifiers": [[{"type": "email", "value": "a"}], []]})
    target.publisher.publish(Publication("profiles"), MONDAY, frame, "v1")
    rows = target.query(f"SELECT identifiers FROM {target.prefix}.profiles ORDER BY id")
    values = [json.loads(value) if isinstance(value, str) else value for (value,) in rows]
    assert values == [[{"type": "email", "value": "a"}], []]


def test_the_wide_events_table_has_the_columns_of_the_guides_and_json(target: Target) -> None:
    at = pl.lit(datetime(2026, 11, 2, 10, tzinfo=UTC))
    keys = {"event_id": 2**60, "user_id": 5, "session_id": 6, "time": at}
    tables = {
        "signup": pl.LazyFrame({"plan": ['x":null,"\n{'], "none": [None]}, schema_overrides={"none": pl.String}),
        "pageviews": pl.LazyFrame({"domain": ["a.com"], "path": ["/x"], "query": ["?q=1"], "title": ["T"]}),
    }
    frame = events_table(
        {name: rows.with_columns(**{k: v if isinstance(v, pl.Expr) else pl.lit(v, pl.Int64) for k, v in keys.items()})
         for name, rows in tables.items()},
        users=pl.LazyFrame({"user_id": [5], "email": ["a@x"], "gone": [None]}),
    )  # fmt: skip
    assert list(frame.collect_schema()) == list(COLUMNS)
    target.publisher.publish(PUBLICATION, MONDAY, frame, "v1")
    path = "JSON_VALUE({}, '$.{}')" if target.publisher.target.startswith("bigquery") else "{}::jsonb->>'{}'"
    plan, email = path.format("event_properties", "plan"), path.format("user_properties", "email")
    rows = target.query(
        f"SELECT event_id, event_type, page_url, page_title, {plan}, {email} FROM {target.prefix}.events ORDER BY 2"
    )
    assert rows == [
        (str(2**60), "pageviews", "a.com/x?q=1", "T", None, "a@x"),
        (str(2**60), "signup", None, None, 'x":null,"\n{', "a@x"),
    ]


def test_resolved_views_give_todays_user_and_profile(target: Target) -> None:
    publish = target.publisher.publish
    for day in (MONDAY, TUESDAY):
        migrations = pl.LazyFrame({"from_user_id": [1], "resolved_to": [2 if day == TUESDAY else 9]})
        publish(Publication("heap_user_migrations"), day, migrations, f"{day}")
        graph = pl.LazyFrame({"identifier_type": ["heap_user_id"], "identifier": ["2"], "profile_id": [f"p-{day}"]})
        publish(Publication("identity_graph"), day, graph, f"{day}")
    signup = Publication("heap_events_signup")
    publish(signup, MONDAY, pl.LazyFrame({"event_id": [7, 8], "user_id": [1, 3]}), "v")
    view, newest = f"heap_resolved_{uuid4().hex[:8]}", ResolvedOn(TUESDAY, TUESDAY)
    question = f"SELECT event_id, resolved_user_id, profile_id FROM {view}.heap_events_signup ORDER BY event_id"

    assert target.publisher.resolve_views(["heap_events_signup"], into=view, on=newest) == [
        f"{view}.heap_events_signup"
    ]

    assert target.query(question) == [(7, 2, "p-2026-11-03"), (8, 3, None)]
    assert target.publisher.resolve_views(["heap_events_signup"], into=view, on=newest) == []
    publish(signup, MONDAY, pl.LazyFrame({"event_id": [7], "user_id": [1], "plan": ["pro"]}), "v2")
    assert target.publisher.resolve_views(["heap_events_signup"], into=view, on=newest), "a column was added"
    assert target.query(f"SELECT plan FROM {view}.heap_events_signup") == [("pro",)]


def test_of_two_who_load_a_day_at_once_the_last_is_known_as_such(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, replace = target.publisher.publish, target.publisher._replace

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(target.publisher, "_replace", replace)
        assert publish(PEOPLE, MONDAY, people(2), "v2").status is PublishStatus.LOADED
        return replace(*arguments)

    monkeypatch.setattr(target.publisher, "_replace", overtaken)
    publish(PEOPLE, MONDAY, people(1), "v1")
    assert target.query(f"SELECT id FROM {target.prefix}.people") == [(1,)]
    assert target.publisher.is_published("people", MONDAY, "v1")
    assert not target.publisher.is_published("people", MONDAY, "v2")
    assert publish(PEOPLE, MONDAY, people(2), "v2").status is PublishStatus.LOADED
    assert target.query(f"SELECT id FROM {target.prefix}.people") == [(2,)]
    assert publish(PEOPLE, MONDAY, people(2), "v2").status is PublishStatus.UNCHANGED


def test_three_who_make_a_schema_and_a_table_at_once_all_succeed(postgres: str, tmp_path: Path) -> None:
    for number in range(5):
        begun, schema = Barrier(3), f"made_{number}"
        store = Store(str(tmp_path / schema))

        def publish(day: date, begun: Barrier = begun, schema: str = schema, store: Store = store) -> PublishStatus:
            publisher = PostgresPublisher(postgres, schema, store)
            rows = people(day.day, **{f"only_on_{day.day}": "x"})
            begun.wait(30)
            return publisher.publish(PEOPLE, day, rows, "v1").status

        with ThreadPoolExecutor(3) as pool:
            statuses = list(pool.map(publish, [MONDAY, TUESDAY, date(2026, 11, 4)]))
        assert statuses == [PublishStatus.LOADED] * 3
        with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"SELECT partition_day, id, only_on_2, only_on_3, only_on_4 FROM {schema}.people ORDER BY id"
            )
            rows = [tuple(row) for row in cursor.fetchall()]
        assert rows == [
            (MONDAY, 2, "x", None, None),
            (TUESDAY, 3, None, "x", None),
            (date(2026, 11, 4), 4, None, None, "x"),
        ]


LATE = """
import sys, time
from datetime import date
import polars as pl
from heap_assets.storage import Store
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
from heap_assets.sources.warehouse.publish import Publication
from heap_assets.sources.warehouse.publish_log import PublishLog

asked = []

def made(rows):
    if not asked:
        asked.append(print("making", flush=True))
        sys.stdin.readline()
    return rows

def ends(*_):
    print("loaded", flush=True)
    time.sleep(60)

publisher = PUBLISHER
PublishLog.end = ends
rows = pl.LazyFrame({"id": [1]}).map_batches(made, schema={"id": pl.Int64})
publisher.publish(Publication("people"), date(2026, 11, 2), rows, "older")
"""


@pytest.mark.parametrize("overtaken", [False, True])
def test_who_dies_after_a_load_is_not_taken_for_one_who_never_loaded(
    target: Target, tmp_path: Path, overtaken: bool
) -> None:
    publish = target.publisher.publish
    target.publisher.publish(PEOPLE, MONDAY, people(2), "newer" if not overtaken else "oldest")
    code = LATE.replace("PUBLISHER", target.spelled.replace("STORE", f"Store({str(tmp_path / 'lake')!r})"))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as late:
        assert late.stdin is not None
        assert late.stdout is not None
        assert late.stdout.readline() == "making\n"
        if overtaken:
            assert publish(PEOPLE, MONDAY, people(2), "newer").status is PublishStatus.LOADED
        late.stdin.write("\n")
        late.stdin.flush()
        assert late.stdout.readline() == "loaded\n"
        late.kill()
    assert target.query(f"SELECT id FROM {target.prefix}.people") == [(1,)]
    assert not target.publisher.is_published("people", MONDAY, "newer")
    assert publish(PEOPLE, MONDAY, people(2), "newer").status is PublishStatus.LOADED
    assert target.query(f"SELECT id FROM {target.prefix}.people") == [(2,)]
    assert publish(PEOPLE, MONDAY, people(2), "newer").status is PublishStatus.UNCHANGED


def test_a_load_that_died_hides_none_before_it(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    publish, replace = target.publisher.publish, target.publisher._replace
    publish(PEOPLE, MONDAY, people(1), "v1")

    def dies(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as dying:
        dying.setattr(PublishLog, "end", dies)
        with pytest.raises(MemoryError):
            publish(PEOPLE, MONDAY, people(2), "v2")

        def begins(publication: Publication, day: date, frame: pl.LazyFrame, begin: Callable[[str], None]) -> None:
            replace(publication, day, frame, lambda name: (begin(name), dies()))

        dying.setattr(target.publisher, "_replace", begins)
        with pytest.raises(MemoryError):
            publish(PEOPLE, MONDAY, people(3), "v3")
    assert target.query(f"SELECT id FROM {target.prefix}.people") == [(2,)]
    assert publish(PEOPLE, MONDAY, people(1), "v1").status is PublishStatus.LOADED
    assert target.query(f"SELECT id FROM {target.prefix}.people") == [(1,)]


def test_a_view_that_another_publisher_made_since_is_made_again(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, create = target.publisher, target.publisher._create_view
    for day in (MONDAY, TUESDAY):
        rows = {"from_user_id": [1], "resolved_to": [int(f"{day:%d}")], "user_id": [1]}
        publisher.publish(Publication("heap_user_migrations"), day, pl.LazyFrame(rows), "v")
        graph = {"identifier_type": ["heap_user_id"], "identifier": ["2"], "profile_id": ["p"]}
        publisher.publish(Publication("identity_graph"), day, pl.LazyFrame(graph), "v")
    publisher.publish(Publication("t"), MONDAY, pl.LazyFrame({"user_id": [1]}), "v1")
    view = f"heap_resolved_{uuid4().hex[:8]}"

    def overtaken(*arguments: Any) -> None:
        create(*arguments)
        monkeypatch.setattr(publisher, "_create_view", create)
        publisher.resolve_views(["t"], into=view, on=ResolvedOn(MONDAY, MONDAY))

    monkeypatch.setattr(publisher, "_create_view", overtaken)
    publisher.resolve_views(["t"], into=view, on=ResolvedOn(TUESDAY, TUESDAY))
    assert publisher.resolve_views(["t"], into=view, on=ResolvedOn(TUESDAY, TUESDAY)) == [f"{view}.t"]
    assert target.query(f"SELECT resolved_user_id FROM {view}.t") == [(3,)]


def test_a_view_gets_the_column_of_a_run_that_died_before_it_said_so(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = target.publisher.publish
    publish(Publication("heap_user_migrations"), MONDAY, pl.LazyFrame({"from_user_id": [1], "resolved_to": [2]}), "v")
    graph = {"identifier_type": ["heap_user_id"], "identifier": ["2"], "profile_id": ["p"]}
    publish(Publication("identity_graph"), MONDAY, pl.LazyFrame(graph), "v")
    publish(Publication("t"), MONDAY, pl.LazyFrame({"user_id": [1]}), "v1")
    view, on = f"heap_resolved_{uuid4().hex[:8]}", ResolvedOn(MONDAY, MONDAY)
    target.publisher.resolve_views(["t"], into=view, on=on)
    wider = pl.LazyFrame({"user_id": [1], "plan": ["pro"]})
    with monkeypatch.context() as dying:
        dying.setattr(PublishLog, "end", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            publish(Publication("t"), MONDAY, wider, "v2")
    publish(Publication("t"), MONDAY, wider, "v2")
    assert target.publisher.resolve_views(["t"], into=view, on=on) == [f"{view}.t"]
    assert target.query(f"SELECT plan FROM {view}.t") == [("pro",)]
    assert target.publisher.resolve_views(["t"], into=view, on=on) == []


def test_the_wide_table_is_resolved_though_its_user_id_is_text(target: Target) -> None:
    publish = target.publisher.publish
    publish(Publication("heap_user_migrations"), MONDAY, pl.LazyFrame({"from_user_id": [1], "resolved_to": [2]}), "v")
    graph = {"identifier_type": ["heap_user_id"], "identifier": ["2"], "profile_id": ["p"]}
    publish(Publication("identity_graph"), MONDAY, pl.LazyFrame(graph), "v")
    event = {"event_id": [1], "user_id": [1], "session_id": [1], "time": [datetime(2026, 11, 2, tzinfo=UTC)]}
    publish(PUBLICATION, MONDAY, events_table({"signup": pl.LazyFrame(event)}), "v")
    view = f"heap_resolved_{uuid4().hex[:8]}"
    target.publisher.resolve_views(["events"], into=view, on=ResolvedOn(MONDAY, MONDAY))
    assert target.query(f"SELECT user_id, resolved_user_id, profile_id FROM {view}.events") == [("1", 2, "p")]


def test_types_widen_and_the_views_on_them_stay(target: Target) -> None:
    publish = target.publisher.publish
    publish(Publication("heap_user_migrations"), MONDAY, pl.LazyFrame({"from_user_id": [1], "resolved_to": [2]}), "v")
    graph = {"identifier_type": ["heap_user_id"], "identifier": ["2"], "profile_id": ["p"]}
    publish(Publication("identity_graph"), MONDAY, pl.LazyFrame(graph), "v")
    rows = pl.LazyFrame({"user_id": [1], "amount": [3]}, schema={"user_id": pl.Int64, "amount": pl.Int32})
    wider = pl.LazyFrame({"user_id": [1], "amount": [Decimal("2.5")]}, schema_overrides={"amount": pl.Decimal(12, 2)})
    publish(Publication("t"), MONDAY, rows, "v1")
    view = f"heap_resolved_{uuid4().hex[:8]}"
    target.publisher.resolve_views(["t"], into=view, on=ResolvedOn(MONDAY, MONDAY))
    assert target.publisher.preview(Publication("t"), wider, TUESDAY) == Preview(False, (), ("amount",))

    publish(Publication("t"), TUESDAY, wider, "v1")

    amounts = [Decimal(amount) for (amount,) in target.query(f"SELECT amount FROM {view}.t ORDER BY amount")]
    assert amounts == [Decimal("2.5"), Decimal(3)]


def test_a_preview_says_what_would_happen_and_does_nothing(target: Target) -> None:
    assert target.publisher.preview(PEOPLE, people(1), MONDAY) == Preview(creates=True)
    assert not target.publisher.exists("people")
    target.publisher.publish(PEOPLE, MONDAY, people(1), "v1")
    assert target.publisher.preview(PEOPLE, people(1, city="x"), MONDAY) == Preview(False, ("city",))
    with pytest.raises(PublishError, match="'id'"):
        target.publisher.preview(PEOPLE, pl.LazyFrame({"id": ["text"]}), MONDAY)


def test_what_was_done_is_told(target: Target) -> None:
    published = target.publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
    assert published.bytes > 100
    assert published.jobs


def test_preflight_tries_to_write(target: Target) -> None:
    assert all(permission.passed for permission in target.publisher.preflight())


def test_a_cell_that_cannot_be_converted_is_not_quoted(target: Target) -> None:
    frame = pl.LazyFrame({"id": ["ann@example.com"]}).with_columns(pl.col("id").str.to_integer(strict=True))
    with pytest.raises(PublishError, match="people 2026-11-02: its rows cannot be made") as caught:
        target.publisher.publish(PEOPLE, MONDAY, frame, "v1")
    assert "ann@example.com" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_killed_load_leaves_the_old_day(target: Target, tmp_path: Path) -> None:
    target.publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
    code = f"""
from datetime import date
import polars as pl
import time
from heap_assets.storage import Store
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery import publisher as bigquery_publish
from heap_assets.sources.warehouse.postgres import publisher as postgres_publish
from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
from heap_assets.sources.warehouse.publish import Publication
exchange = postgres_publish._exchange
def stop(*given):
    if given[0].__class__.__name__ == "Cursor":
        exchange(*given)
    print("loaded", flush=True)
    time.sleep(60)
publisher = {target.spelled.replace("STORE", f"Store({str(tmp_path / 'lake')!r})")}
many = pl.LazyFrame({{"id": pl.int_range(1_000_000, eager=True)}})
{"bigquery_publish.swap_statement" if "BigQuery" in target.spelled else "postgres_publish._exchange"} = stop
publisher.publish(Publication("people"), date(2026, 11, 2), many, "v2")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "loaded\n", "the new rows are there, beside the old ones"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    assert target.query(f"SELECT count(*) FROM {target.prefix}.people") == [(2,)]
    assert target.publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1").status is PublishStatus.UNCHANGED


def test_a_day_goes_through_gs_and_nothing_stays_there(bigquery_emulator: object, tmp_path: Path) -> None:
    emulator = bigquery_emulator
    account = BigQueryAccount("demo", endpoint=emulator.rest)  # type: ignore[attr-defined]
    dataset = f"pub_{uuid4().hex[:8]}"
    with gcs_server(emulator.buckets) as options, account.client() as client:  # type: ignore[attr-defined]
        url = options.pop("_url")
        httpx.post(f"{url}/storage/v1/b?project=t", json={"name": "staging"}, trust_env=False).raise_for_status()
        client.create_dataset(dataset)
        staging = Store("gs://staging/heap", options)
        publisher = BigQueryPublisher(account, dataset, Store(str(tmp_path / "lake")), staging)
        publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
        publisher.publish(PEOPLE, MONDAY, people(3), "v2")
        assert [row["id"] for row in client.query(f"SELECT id FROM {dataset}.people").result()] == [3]
        assert staging.list() == []
        assert any(job.source_uris for job in client.list_jobs(max_results=5) if isinstance(job, gcp.LoadJob))
        client.delete_dataset(dataset, delete_contents=True)


class TestWhatTheEmulatorCannotRun:
    """Addresses, configurations and statements for Google's own service."""

    def test_a_day_is_loaded_into_its_partition_by_one_replacing_job(self) -> None:
        assert destination("p.d.people", MONDAY) == "p.d.people$20261102"
        config = load_config(PEOPLE, [gcp.SchemaField("id", "INT64")])
        assert (config.write_disposition, config.source_format, config.max_bad_records) == (
            "WRITE_TRUNCATE",
            "PARQUET",
            0,
        )
        assert load_config(PUBLICATION, []).source_format == "NEWLINE_DELIMITED_JSON"

    def test_tables_have_an_explicit_schema_partitions_and_clusters(self) -> None:
        schema = pl.Schema({"partition_day": pl.Date(), "id": pl.Int64(), "tags": pl.List(pl.String)})
        table = new_table("p.d.people", PEOPLE, schema_of(PEOPLE, schema))
        assert (table.time_partitioning.field, table.clustering_fields) == ("partition_day", ["id"])
        assert [(f.name, f.field_type, f.mode, f.description) for f in table.schema] == [
            ("partition_day", "DATE", "NULLABLE", None),
            ("id", "INT64", "NULLABLE", "Key"),
            ("tags", "STRING", "REPEATED", None),
        ]

    def test_types_widen_only_where_bigquery_can(self) -> None:
        old = [gcp.SchemaField("a", "INTEGER"), gcp.SchemaField("b", "STRING"), gcp.SchemaField("c", "DATE")]
        assert evolved("t", old, [gcp.SchemaField("a", "NUMERIC")]).widened == [gcp.SchemaField("a", "NUMERIC")]
        with pytest.raises(PublishError, match="'c' is DATE in BigQuery and would become INT64"):
            evolved("t", old, [gcp.SchemaField("c", "INT64")])
        with pytest.raises(PublishError, match="'a' is INT64 in BigQuery and would become STRING"):
            evolved("t", old, [gcp.SchemaField("a", "STRING")])
        with pytest.raises(PublishError, match="REPEATED STRING"):
            evolved("t", old, [gcp.SchemaField("b", "STRING", "REPEATED")])


def test_assets_get_table_names() -> None:
    assert table_name("heap/events/signup") == "heap_events_signup"
