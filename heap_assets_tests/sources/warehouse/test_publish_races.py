"""Loads that overlap or die: what a target holds is known, and no day is lost or loaded twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from threading import Barrier
from typing import Any

import polars as pl
import pytest
from adbc_driver_postgresql import dbapi

from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
from heap_assets.sources.warehouse.publish import (
    Publication,
    PublishStatus,
)
from heap_assets.sources.warehouse.publish_log import PublishLog
from heap_assets.sources.warehouse.redshift.publisher import RedshiftPublisher
from heap_assets.sources.warehouse.snowflake.publisher import SnowflakePublisher
from heap_assets.storage import Store
from heap_assets_tests.sources.warehouse.publish_target import MONDAY, PEOPLE, TUESDAY, Target, people


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
from heap_assets.sources.warehouse.redshift.connection import RedshiftDatabase
from heap_assets.sources.warehouse.redshift.publisher import RedshiftPublisher
from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
from heap_assets.sources.warehouse.snowflake.publisher import SnowflakePublisher
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


LAST_STEP = {
    BigQueryPublisher: "bigquery_publish.swap_statement",
    PostgresPublisher: "postgres_publish._exchange",
    RedshiftPublisher: "staged.StagedPublisher._checksum",
    SnowflakePublisher: "staged.StagedPublisher._checksum",
}
"""What replaces the rows, and is followed by nothing but the commit."""


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
from heap_assets.sources.warehouse import staged
from heap_assets.sources.warehouse.redshift.connection import RedshiftDatabase
from heap_assets.sources.warehouse.redshift.publisher import RedshiftPublisher
from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
from heap_assets.sources.warehouse.snowflake.publisher import SnowflakePublisher
from heap_assets.sources.warehouse.publish import Publication
exchange = postgres_publish._exchange
def stop(*given):
    if given[0].__class__.__name__ == "Cursor":
        exchange(*given)
    print("loaded", flush=True)
    time.sleep(60)
publisher = {target.spelled.replace("STORE", f"Store({str(tmp_path / 'lake')!r})")}
many = pl.LazyFrame({{"id": pl.int_range(1_000_000, eager=True)}})
{LAST_STEP[type(target.publisher)]} = stop
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
