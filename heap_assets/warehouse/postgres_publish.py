"""Publishing to PostgreSQL: a day's rows replaced in one transaction, loaded by COPY in binary form."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import adbc_driver_manager
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from heap_assets.lake import Store
from heap_assets.warehouse.model import AccessError
from heap_assets.warehouse.publish import (
    DAY_COLUMN,
    Publication,
    Published,
    Publisher,
    PublishError,
    PublishStatus,
    resolved_view,
    with_day,
)

_STAGING = "heap_assets_staging"
_BATCH_ROWS = 65_536
_SCALARS: Mapping[type[pl.DataType], str] = {
    pl.Int8: "smallint", pl.Int16: "smallint", pl.Int32: "integer", pl.Int64: "bigint",
    pl.UInt8: "smallint", pl.UInt16: "integer", pl.UInt32: "bigint", pl.UInt64: "numeric(20,0)",
    pl.Float32: "real", pl.Float64: "double precision", pl.Boolean: "boolean", pl.String: "text",
    pl.Categorical: "text", pl.Enum: "text", pl.Null: "text", pl.Binary: "bytea", pl.Date: "date", pl.Time: "time",
    pl.Struct: "jsonb",
}  # fmt: skip
_AS_TEXT = (pl.Categorical, pl.Enum, pl.Null, pl.Decimal, pl.UInt64, pl.Time)
"""Types that COPY carries as text; PostgreSQL casts them back."""
_WIDER = {
    "smallint": {"integer", "bigint", "numeric"},
    "integer": {"bigint", "numeric"},
    "bigint": {"numeric"},
    "real": {"double precision"},
}


class PostgresPublisher(Publisher):
    """Publishes into one schema, which is made if it is missing; structs become jsonb."""

    def __init__(self, uri: str, schema: str, store: Store) -> None:
        parts = urlsplit(uri)
        super().__init__(store, f"postgres-{parts.hostname}-{parts.path.strip('/')}-{schema}")
        self._uri = uri
        self.schema = schema

    def exists(self, table: str) -> bool:
        with self._transaction() as cursor:
            return bool(self._existing(cursor, table))

    def _replace(self, publication: Publication, day: date | None, frame: pl.LazyFrame) -> Published:
        started = time.monotonic()
        rows = with_day(frame, day)
        types = {name: type_of(name, dtype, publication) for name, dtype in rows.collect_schema().items()}
        with tempfile.TemporaryDirectory() as folder, self._transaction() as cursor:
            path = Path(folder) / "rows.parquet"
            _copyable(rows).sink_parquet(path, engine="streaming")
            added = self._prepare(cursor, publication, types)
            loaded = _stage(cursor, path)
            target = self._quoted(publication.table)
            cursor.execute(f"LOCK TABLE {target} IN SHARE ROW EXCLUSIVE MODE")  # one writer at a time; readers go on
            if day is None:
                cursor.execute(f"DELETE FROM {target}")
            else:
                cursor.execute(f"DELETE FROM {target} WHERE {DAY_COLUMN} = DATE '{day.isoformat()}'")
            names = ", ".join(_identifier(name) for name in types)
            values = ", ".join(f"{_identifier(name)}::{kind}" for name, kind in types.items())
            cursor.execute(f"INSERT INTO {target} ({names}) SELECT {values} FROM pg_temp.{_STAGING}")
        seconds = time.monotonic() - started
        return Published(PublishStatus.LOADED, publication.table, day, loaded, tuple(added), seconds)

    def _prepare(self, cursor: dbapi.Cursor, publication: Publication, types: Mapping[str, str]) -> list[str]:
        """Create the table, or add and widen columns; PublishError if a type would narrow."""
        target = self._quoted(publication.table)
        existing = self._existing(cursor, publication.table)
        if not existing:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {_identifier(self.schema)}")
            columns = ", ".join(f"{_identifier(name)} {kind}" for name, kind in types.items())
            cursor.execute(f"CREATE TABLE {target} ({columns})")
            cursor.execute(f"COMMENT ON TABLE {target} IS {_literal(publication.description)}")
            self._describe(cursor, publication, list(types))
            for column in ([DAY_COLUMN] if publication.by_day else []) + list(publication.cluster_by):
                cursor.execute(f"CREATE INDEX ON {target} ({_identifier(column)})")
            return []
        for name, kind in types.items():
            old = existing.get(name)
            if old is None or _plain(old) == _plain(kind):
                continue
            if _plain(kind) not in _WIDER.get(_plain(old), set()):
                raise PublishError(
                    f"{self.schema}.{publication.table}: column {name!r} is {old} in PostgreSQL and would become "
                    f"{kind}: a type can only be widened. Rename the column, or drop the table to have it made anew"
                )
            cursor.execute(f"ALTER TABLE {target} ALTER COLUMN {_identifier(name)} TYPE {kind}")
        added = [name for name in types if name not in existing]
        for name in added:
            cursor.execute(f"ALTER TABLE {target} ADD COLUMN {_identifier(name)} {types[name]}")
        self._describe(cursor, publication, added)
        return added

    def _describe(self, cursor: dbapi.Cursor, publication: Publication, columns: list[str]) -> None:
        for name in columns:
            if text := publication.descriptions.get(name):
                column = f"{self._quoted(publication.table)}.{_identifier(name)}"
                cursor.execute(f"COMMENT ON COLUMN {column} IS {_literal(text)}")

    def _existing(self, cursor: dbapi.Cursor, table: str) -> dict[str, str]:
        cursor.execute(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a "
            f"WHERE a.attrelid = to_regclass({_literal(self._quoted(table))}) AND a.attnum > 0 AND NOT a.attisdropped"
        )
        return dict(cursor.fetchall())

    def resolve_views(self, events: list[str], *, into: str = "heap_resolved") -> list[str]:
        """Create the views `heap_resolved.<table>`: event rows with today's user and profile. Returns their names."""
        with self._transaction() as cursor:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {_identifier(into)}")
            for table in events:
                query = resolved_view(
                    self._quoted(table),
                    self._quoted("heap_user_migrations"),
                    self._quoted("identity_graph"),
                    text="text",
                )
                cursor.execute(f"DROP VIEW IF EXISTS {_identifier(into)}.{_identifier(table)}")
                cursor.execute(f"CREATE VIEW {_identifier(into)}.{_identifier(table)} AS {query}")
        return [f"{into}.{table}" for table in events]

    @contextmanager
    def _transaction(self) -> Iterator[dbapi.Cursor]:
        try:
            connection = dbapi.connect(self._uri)
        except adbc_driver_manager.Error as error:
            raise AccessError(f"{self.target} cannot be reached: {_reason(error)}") from error
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SET TIME ZONE 'UTC'")
                yield cursor
                connection.commit()
        except adbc_driver_manager.Error as error:
            if error.sqlstate == "42501":
                raise AccessError(f"{self.target}: {_reason(error)}: GRANT CREATE ON SCHEMA {self.schema}") from error
            raise PublishError(f"{self.target}: {_reason(error)}") from error

    def _quoted(self, table: str) -> str:
        return f"{_identifier(self.schema)}.{_identifier(table)}"


def type_of(name: str, dtype: pl.DataType, publication: Publication) -> str:
    """Return the PostgreSQL type of a column; PublishError if there is none."""
    if name in publication.json_columns:
        return "jsonb"
    if isinstance(dtype, pl.List | pl.Array):
        inner = type_of(name, _instance(dtype.inner), publication)
        return "jsonb" if inner == "jsonb" or inner.endswith("[]") else f"{inner}[]"
    if isinstance(dtype, pl.Datetime):
        return "timestamp with time zone" if dtype.time_zone else "timestamp without time zone"
    if isinstance(dtype, pl.Decimal):
        return f"numeric({dtype.precision or 38},{dtype.scale})"
    kind = next((kind for known, kind in _SCALARS.items() if isinstance(dtype, known)), None)
    if kind is None:
        raise PublishError(f"column {name!r} is of type {dtype}, which PostgreSQL does not have")
    return kind


def _copyable(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Turn what COPY cannot carry into JSON text: structs, lists of them, and lists of lists."""
    expressions = []
    for name, dtype in rows.collect_schema().items():
        column = pl.col(name)
        if isinstance(dtype, pl.Struct):
            column = pl.when(column.is_not_null()).then(column.struct.json_encode())
        elif isinstance(dtype, pl.List) and isinstance(_instance(dtype.inner), pl.Struct | pl.List):
            wrapped = pl.struct(column.alias("v")).struct.json_encode()
            column = pl.when(column.is_not_null()).then(wrapped.str.strip_prefix('{"v":').str.strip_suffix("}"))
        elif isinstance(dtype, pl.List) and isinstance(_instance(dtype.inner), pl.Decimal):
            column = column.cast(pl.List(pl.String))
        elif isinstance(dtype, _AS_TEXT):
            column = column.cast(pl.String)
        expressions.append(column.alias(name))
    return rows.select(expressions)


def _stage(cursor: dbapi.Cursor, path: Path) -> int:
    """Stream a Parquet file into a temporary table."""
    with pq.ParquetFile(path) as file:
        reader = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(_BATCH_ROWS))
        cursor.adbc_ingest(_STAGING, reader, mode="create", temporary=True)
        return int(file.metadata.num_rows)


def _instance(dtype: Any) -> pl.DataType:
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance


def _plain(kind: str) -> str:
    return kind.partition("(")[0]


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _reason(error: adbc_driver_manager.Error) -> str:
    text = str(error)
    return (text.partition("ERROR:")[2] or text.partition("FATAL:")[2] or text).strip().splitlines()[0]
