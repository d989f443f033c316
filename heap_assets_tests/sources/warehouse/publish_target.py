"""Where published tables go in tests: a dataset of an emulator, or a schema of a server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from adbc_driver_postgresql import dbapi

from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
from heap_assets.sources.warehouse.publish import (
    Publication,
    Publisher,
)
from heap_assets.sources.warehouse.redshift.connection import RedshiftDatabase
from heap_assets.sources.warehouse.redshift.publisher import RedshiftPublisher
from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
from heap_assets.sources.warehouse.snowflake.publisher import SnowflakePublisher
from heap_assets.storage import Store
from heap_assets_tests.sources.warehouse.strict_redshift import Redshift

ROLE = "arn:aws:iam::123456789012:role/loads"
MONDAY, TUESDAY = date(2026, 11, 2), date(2026, 11, 3)
PEOPLE = Publication("people", description="Who", descriptions={"id": "Key", "city": 'Where "now"'}, cluster_by=("id",))


@dataclass(frozen=True)
class Target:
    publisher: Publisher
    query: Callable[[str], list[tuple[Any, ...]]]
    change: Callable[[str], object]
    prefix: str
    spelled: str


def published_to(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
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
    if request.param == "snowflake":
        yield from _in_snowflake(request.getfixturevalue("snowflake_server"), store)
        return
    if request.param == "redshift":
        yield from _in_redshift(request.getfixturevalue("redshift"), store)
        return
    uri = request.getfixturevalue("postgres")
    with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:

        def ask_postgres(text: str) -> list[tuple[Any, ...]]:
            cursor.execute(text)
            return [tuple(row) for row in cursor.fetchall()]

        spelled = f"PostgresPublisher({uri!r}, 'pub', STORE)"
        yield Target(PostgresPublisher(uri, "pub", store), ask_postgres, cursor.execute, "pub", spelled)


def _in_snowflake(address: str, store: Store) -> Iterator[Target]:
    account = SnowflakeAccount("fakesnow", "u", f"DB{uuid4().hex[:8].upper()}", endpoint=address, password="p-4711")
    with account.session("") as cursor:

        def ask(text: str) -> list[tuple[Any, ...]]:
            cursor.execute(text)
            return [tuple(row) for row in cursor.fetchall()]

        spelled = f"SnowflakePublisher({account!r}, 'PUB', STORE)".replace("endpoint=", "password='p-4711', endpoint=")
        yield Target(SnowflakePublisher(account, "PUB", store), ask, ask, "pub", spelled)


def _in_redshift(server: Redshift, store: Store) -> Iterator[Target]:
    """Publish through the gateway, and ask PostgreSQL itself, with names folded as Redshift does."""
    staging = Store(server.bucket, server.s3)
    publisher = RedshiftPublisher(RedshiftDatabase(server.uri), "pub", store, staging, ROLE)
    with dbapi.connect(server.postgres, autocommit=True) as connection, connection.cursor() as cursor:

        def change(text: str) -> None:
            cursor.execute(re.sub('"[^"]*"', lambda name: name[0].lower(), text))

        def ask(text: str) -> list[tuple[Any, ...]]:
            change(text)
            return [tuple(row) for row in cursor.fetchall()]

        spelled = f"RedshiftPublisher(RedshiftDatabase({server.uri!r}), 'pub', STORE, "
        spelled += f"Store({server.bucket!r}, {server.s3!r}), {ROLE!r})"
        yield Target(publisher, ask, change, "pub", spelled)


def people(*ids: int, **columns: Any) -> pl.LazyFrame:
    return pl.LazyFrame({"id": list(ids)}, schema={"id": pl.Int64}).with_columns(
        **{name: pl.lit(value) if not isinstance(value, pl.Expr) else value for name, value in columns.items()}
    )
