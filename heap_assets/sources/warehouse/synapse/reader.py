"""Synapse and Fabric as sources, read as Arrow batches of Microsoft's driver."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from heap_assets.sources.warehouse.arrow import MisfitError, Stored, times_of_text, write_parquet
from heap_assets.sources.warehouse.base import Column, Permission, Table, Tally
from heap_assets.sources.warehouse.sql_engine import Query, SqlWarehouse, misfit, quoted
from heap_assets.sources.warehouse.synapse.connection import SynapseServer
from heap_assets.sources.warehouse.synapse.types import arrow_type, literal, selected, spelled, summed_hash
from heap_assets.values import sql_literal

_GRANT = "GRANT SELECT ON SCHEMA:: its schema TO this user"
_ROWS = 65_536


@dataclass(frozen=True)
class SynapseWarehouse(SqlWarehouse[Any]):
    """One dedicated pool of Synapse, or one warehouse of Fabric."""

    account: SynapseServer
    kind: str = "synapse"
    default_schema = "dbo"

    @property
    def name(self) -> str:
        """Server and database."""
        return self.account.name

    def preflight(self) -> list[Permission]:
        remedy = f"check the login of {self.account.section}"
        return self._listed(remedy, _GRANT, lambda cursor, table: cursor.execute(f"SELECT TOP (1) 1 AS x FROM {table}"))

    def _connect(self, scratch: Path | None = None) -> AbstractContextManager[Any]:
        del scratch  # nothing spills here
        return self.account.session(_GRANT)

    def _moment(self, moment: datetime) -> str:
        utc = moment.astimezone(UTC).replace(tzinfo=None)
        return f"CAST({sql_literal(utc.isoformat(timespec='microseconds'))} AS DATETIME2(6))"

    def _limited(self, limit: int) -> str:
        return f" ORDER BY (SELECT NULL) OFFSET 0 ROWS FETCH NEXT {limit:d} ROWS ONLY"

    def _tables(self, connection: Any) -> list[Table]:
        rows = _rows(
            connection,
            "SELECT TABLE_SCHEMA + '.' + TABLE_NAME, TABLE_TYPE FROM INFORMATION_SCHEMA.TABLES "
            "WHERE TABLE_SCHEMA NOT IN ('sys', 'INFORMATION_SCHEMA', 'queryinsights') ORDER BY 1",
        )
        return [Table(name, "view" if kind == "VIEW" else "table") for name, kind in rows]

    def _columns(self, connection: Any, resolved: str) -> list[Column]:
        schema, _, table = resolved.partition(".")
        return [Column(name, kind, nullable) for name, kind, nullable in columns_of(connection, schema, table)]

    def _version(self, connection: Any, resolved: str) -> str | None:
        """Say nothing: neither tells when the rows of a table changed."""
        del connection, resolved
        return None

    def _tally(self, connection: Any, resolved: str, column: str) -> Tally:
        kind = next(kind for name, kind, _ in columns_of(connection, *resolved.split(".", 1)) if name == column)
        query = f"SELECT COUNT_BIG(*), {summed_hash({column: kind})} FROM {quoted(resolved)}"
        [(rows, checksum)] = _rows(connection, query)
        return Tally(int(rows), str(checksum))

    def _stored(self, connection: Any, query: Query, text: Collection[str], path: Path) -> Stored:
        types = {column.name: column.type for column in self._columns(connection, query.resolved)}
        as_text = set(text)
        while True:
            kinds = {name: pa.string() if name in as_text else arrow_type(types[name]) for name in query.columns}
            parts = [selected(name, types[name], text=name in as_text) for name in query.columns]
            connection.execute(f"SELECT {', '.join(parts)}{query.clauses}")
            schema = pa.schema(list(kinds.items()))
            try:
                return write_parquet(schema, _batches(connection, schema), path)
            except MisfitError as error:
                if error.column in as_text:
                    raise misfit(query.relation, error) from error
                as_text.add(error.column)


def columns_of(cursor: Any, schema: str, table: str) -> list[tuple[str, str, bool]]:
    """Return name, type and whether it may be null, of each column; none without a table."""
    rows = _rows(
        cursor,
        "SELECT COLUMN_NAME, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, "
        "DATETIME_PRECISION, IS_NULLABLE FROM INFORMATION_SCHEMA.COLUMNS "
        f"WHERE TABLE_SCHEMA = {literal(schema)} AND TABLE_NAME = {literal(table)} ORDER BY ORDINAL_POSITION",
    )
    return [
        (name, spelled(kind, length, precision, scale, digits), nullable != "NO")
        for name, kind, length, precision, scale, digits, nullable in rows
    ]


def _batches(cursor: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with cursor.arrow_reader(_ROWS) as reader:
        for batch in reader:
            columns = []
            for index, field in enumerate(schema):
                try:
                    column = batch.column(index)
                    is_text_of_time = pa.types.is_time(field.type) and pa.types.is_string(column.type)
                    columns.append(times_of_text(column) if is_text_of_time else column.cast(field.type))
                except pa.ArrowInvalid as error:
                    raise MisfitError(field.name, field.type) from error
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _rows(cursor: Any, query: str) -> list[tuple[Any, ...]]:
    cursor.execute(query)
    return [tuple(row) for row in cursor.fetchall()]
