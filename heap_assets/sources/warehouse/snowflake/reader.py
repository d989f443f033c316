"""Snowflake as a source, read as Arrow batches of the driver."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from snowflake.connector.cursor import SnowflakeCursor

from heap_assets.sources.warehouse.arrow import MisfitError, Stored, write_parquet
from heap_assets.sources.warehouse.base import Column, Permission, Table, Tally
from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
from heap_assets.sources.warehouse.snowflake.types import arrow_type, literal, selected
from heap_assets.sources.warehouse.sql_engine import Query, SqlWarehouse, misfit, quoted
from heap_assets.values import sql_identifier

_GRANT = "GRANT USAGE ON its database and schema, and SELECT on it, to this role"
_FIRST_YEAR = 1971
_KINDS = {"BASE TABLE": "table", "VIEW": "view", "MATERIALIZED VIEW": "materialized view", "EXTERNAL TABLE": "table"}


@dataclass(frozen=True)
class SnowflakeWarehouse(SqlWarehouse[SnowflakeCursor]):
    """One database of an account."""

    account: SnowflakeAccount
    kind: str = "snowflake"
    default_schema = "PUBLIC"

    @property
    def name(self) -> str:
        """Account and database."""
        return self.account.name

    def preflight(self) -> list[Permission]:
        remedy = f"check the login of {self.account.section}"
        return self._listed(remedy, _GRANT, lambda cursor, table: cursor.execute(f"SELECT 1 FROM {table} LIMIT 1"))

    def _connect(self, scratch: Path | None = None) -> AbstractContextManager[SnowflakeCursor]:
        del scratch  # nothing spills here
        return self.account.session(_GRANT)

    def _tables(self, connection: SnowflakeCursor) -> list[Table]:
        listed = "SELECT table_schema || '.' || table_name, {} FROM information_schema.{} WHERE table_schema <> {}"
        own = "'INFORMATION_SCHEMA'"
        views = _rows(connection, listed.format("'VIEW', NULL, comment", "views", own))
        rows = _rows(connection, listed.format("table_type, row_count, comment", "tables", own))
        return [
            Table(name, _KINDS.get(kind, "table"), count, comment or "")
            for name, kind, count, comment in sorted({row[0]: row for row in (*views, *rows)}.values())
        ]

    def _columns(self, connection: SnowflakeCursor, resolved: str) -> list[Column]:
        schema, _, table = resolved.partition(".")
        rows = _rows(
            connection,
            "SELECT column_name, data_type, numeric_precision, numeric_scale, is_nullable, comment "
            f"FROM information_schema.columns WHERE table_schema = {literal(schema)} "
            f"AND table_name = {literal(table)} ORDER BY ordinal_position",
        )
        return [
            Column(name, _spelled(kind, precision, scale), nullable == "YES", description=comment or "")
            for name, kind, precision, scale, nullable, comment in rows
        ]

    def _version(self, connection: SnowflakeCursor, resolved: str) -> str | None:
        """When rows or columns of a table last changed; a view may read elsewhere."""
        schema, _, table = resolved.partition(".")
        rows = _rows(
            connection,
            "SELECT last_altered FROM information_schema.tables WHERE table_type = 'BASE TABLE' "
            f"AND table_schema = {literal(schema)} AND table_name = {literal(table)}",
        )
        # a server that keeps no such time says 1970
        return str(rows[0][0]) if rows and rows[0][0] and rows[0][0].year >= _FIRST_YEAR else None

    def _tally(self, connection: SnowflakeCursor, resolved: str, column: str) -> Tally:
        hashed = f"TO_VARCHAR(SUM(HASH({sql_identifier(column)})))"
        [(rows, checksum)] = _rows(connection, f"SELECT COUNT(*), {hashed} FROM {quoted(resolved)}")
        return Tally(rows, str(checksum))

    def _stored(self, connection: SnowflakeCursor, query: Query, text: Collection[str], path: Path) -> Stored:
        types = {column.name: column.type for column in self._columns(connection, query.resolved)}
        as_text = set(text)
        while True:
            columns = {name: "TEXT" if name in as_text else types[name] for name in query.columns}
            parts = [f"{selected(name, types[name], text=name in as_text)}" for name in columns]
            connection.execute(f"SELECT {', '.join(parts)}{query.clauses}")
            schema = pa.schema([pa.field(name, arrow_type(kind)) for name, kind in columns.items()])
            try:
                return write_parquet(schema, _batches(connection), path)
            except MisfitError as error:
                if error.column in as_text:
                    raise misfit(query.relation, error) from error
                as_text.add(error.column)


def _batches(cursor: SnowflakeCursor) -> Iterator[pa.RecordBatch]:
    for table in cursor.fetch_arrow_batches(force_microsecond_precision=True):
        yield from table.to_batches()


def _spelled(kind: str, precision: int | None, scale: int | None) -> str:
    """Write a type; a NUMBER whose precision the server does not tell has the default, 38 digits before the point."""
    return f"NUMBER({precision or 38},{scale or 0})" if kind in ("NUMBER", "FIXED") else kind


def _rows(cursor: SnowflakeCursor, query: str) -> list[tuple[Any, ...]]:
    cursor.execute(query)
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
