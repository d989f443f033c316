"""Redshift as a source: the rows of a cursor, fetched in batches through PostgreSQL's ADBC driver."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from heap_assets.sources.warehouse.arrow import MisfitError, Stored, write_parquet
from heap_assets.sources.warehouse.base import Column, Permission, Table, Tally
from heap_assets.sources.warehouse.redshift.connection import RedshiftDatabase
from heap_assets.sources.warehouse.redshift.types import arrow_type, hashed, selected, spelled, value_of_text
from heap_assets.sources.warehouse.sql_engine import Query, SqlWarehouse, misfit, quoted
from heap_assets.values import sql_literal

_GRANT = "GRANT USAGE ON its schema and SELECT on it to this user"
_ROWS = 100_000
"""Rows of a fetch."""
_CURSOR = "heap_assets_rows"


@dataclass(frozen=True)
class RedshiftWarehouse(SqlWarehouse[dbapi.Cursor]):
    """One database of a cluster or workgroup; external schemas of Spectrum and data shares are listed too."""

    database: RedshiftDatabase
    kind: str = "redshift"
    default_schema = "public"

    @property
    def name(self) -> str:
        """Host, port and database."""
        return self.database.name

    def preflight(self) -> list[Permission]:
        remedy = f"check {self.database.section}.dsn and that the cluster lets this host in"
        return self._listed(remedy, _GRANT, lambda cursor, table: cursor.execute(f"SELECT 1 FROM {table} LIMIT 1"))

    def _connect(self, scratch: Path | None = None) -> AbstractContextManager[dbapi.Cursor]:
        del scratch  # nothing spills here
        return self.database.session(_GRANT)

    def _tables(self, connection: dbapi.Cursor) -> list[Table]:
        rows = _rows(
            connection,
            "SELECT table_schema || '.' || table_name, table_type, remarks FROM svv_tables "
            "WHERE table_schema NOT IN ('information_schema', 'pg_catalog', 'pg_internal', 'pg_automv') ORDER BY 1",
        )
        return [
            Table(name, "view" if str(kind).upper() == "VIEW" else "table", None, comment or "")
            for name, kind, comment in rows
        ]

    def _columns(self, connection: dbapi.Cursor, resolved: str) -> list[Column]:
        schema, _, table = resolved.partition(".")
        return [Column(name, kind, nullable) for name, kind, nullable in columns_of(connection, schema, table)]

    def _version(self, connection: dbapi.Cursor, resolved: str) -> str | None:
        """Say nothing: Redshift keeps no time of a table's last change that its owner may read."""
        del connection, resolved
        return None

    def _tally(self, connection: dbapi.Cursor, resolved: str, column: str) -> Tally:
        kind = next(kind for name, kind, _ in columns_of(connection, *resolved.split(".", 1)) if name == column)
        summed = f"CAST(SUM({hashed(column, kind, '')}) AS VARCHAR)"
        [(rows, checksum)] = _rows(connection, f"SELECT COUNT(*), {summed} FROM {quoted(resolved)}")
        return Tally(rows, str(checksum))

    def _stored(self, connection: dbapi.Cursor, query: Query, text: Collection[str], path: Path) -> Stored:
        types = {column.name: column.type for column in self._columns(connection, query.resolved)}
        as_text = set(text)
        while True:
            schema = pa.schema(
                [pa.field(name, pa.string() if name in as_text else arrow_type(types[name])) for name in query.columns]
            )
            parts = [selected(name, types[name], text=name in as_text) for name in query.columns]
            connection.execute("BEGIN READ ONLY")
            try:
                connection.execute(f"DECLARE {_CURSOR} CURSOR FOR SELECT {', '.join(parts)}{query.clauses}")
                return write_parquet(schema, _batches(connection, schema), path)
            except MisfitError as error:
                if error.column in as_text:
                    raise misfit(query.relation, error) from error
                as_text.add(error.column)
            finally:
                connection.execute("ROLLBACK")


def columns_of(cursor: dbapi.Cursor, schema: str, table: str) -> list[tuple[str, str, bool]]:
    """Return name, type and whether it may be null, of each column; none without a table."""
    rows = _rows(
        cursor,
        "SELECT column_name, data_type, character_maximum_length, numeric_precision, numeric_scale, is_nullable "
        f"FROM svv_columns WHERE table_schema = {sql_literal(schema)} AND table_name = {sql_literal(table)} "
        "ORDER BY ordinal_position",
    )
    return [
        (name, spelled(kind, length, precision, scale), nullable != "NO")
        for name, kind, length, precision, scale, nullable in rows
    ]


def _batches(cursor: dbapi.Cursor, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while True:
        cursor.execute(f"FETCH FORWARD {_ROWS} FROM {_CURSOR}")
        with cursor.fetch_record_batch() as reader:
            rows = 0
            for batch in reader:
                rows += batch.num_rows
                yield pa.RecordBatch.from_arrays(_typed(batch, schema), schema=schema)
        if rows < _ROWS:
            return


def _typed(batch: pa.RecordBatch, schema: pa.Schema) -> Sequence[pa.Array]:
    columns = []
    for index, field in enumerate(schema):
        try:
            column = value_of_text(batch.column(index), field.type)
            columns.append(column if column.type.equals(field.type) else column.cast(field.type))
        except pa.ArrowInvalid as error:
            raise MisfitError(field.name, field.type) from error
    return columns


def _rows(cursor: dbapi.Cursor, query: str) -> list[tuple[Any, ...]]:
    cursor.execute(query)
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
