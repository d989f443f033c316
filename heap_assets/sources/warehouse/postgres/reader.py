"""PostgreSQL as the warehouse, read through ADBC: COPY in binary form straight into Arrow."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adbc_driver_manager
from adbc_driver_postgresql import StatementOptions, dbapi  # type: ignore[import-untyped]

from heap_assets.sources.warehouse.arrow import MisfitError, SourceFailedError, Stored, write_parquet
from heap_assets.sources.warehouse.base import AccessError, Column, Permission, Table, Tally, WarehouseError
from heap_assets.sources.warehouse.postgres.dsn import Dsn
from heap_assets.sources.warehouse.postgres.errors import reason, server_line
from heap_assets.sources.warehouse.postgres.select import Selection, selection
from heap_assets.sources.warehouse.sql_engine import Query, SqlWarehouse, misfit, quoted
from heap_assets.values import sql_identifier, sql_literal

_BATCH_BYTES = 8 * 1024 * 1024
_RELATIONS = r"""
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
"""
_KINDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table"}


@dataclass(frozen=True)
class PostgresWarehouse(SqlWarehouse[dbapi.Cursor]):
    """A database that speaks PostgreSQL's protocol.

    Parameters
    ----------
    uri
        Anything that libpq takes, such as `postgresql://user:password@host:port/database`; shown nowhere.
    section
        Of the settings that name the database.
    """

    uri: str = field(repr=False)
    connect_timeout: int = 10
    section: str = "warehouse"
    kind: str = "postgres"
    default_schema = "public"

    @property
    def name(self) -> str:
        """Host, port and database."""
        return Dsn.parse(self.uri).server

    def preflight(self) -> list[Permission]:
        try:
            with self._connect() as cursor:
                tables = self._tables(cursor)
                may = _rows(cursor, f"SELECT has_table_privilege(c.oid, 'SELECT') {_RELATIONS}")
        except WarehouseError as error:
            remedy = f"check {self.section}.dsn and that the server lets this host in"
            return [Permission("connect", False, str(error), remedy)]
        readable = sum(bool(row[0]) for row in may)
        return [
            Permission("connect", True, self.name),
            Permission("tables", bool(tables), f"{len(tables)} tables and views", "GRANT USAGE ON SCHEMA … TO …"),
            Permission("read", readable > 0, f"{readable} of {len(tables)} readable", "GRANT SELECT ON … TO …"),
        ]

    def _tally(self, connection: dbapi.Cursor, resolved: str, column: str) -> Tally:
        hashed = f"hashtextextended({sql_identifier(column)}::text, 0)::numeric"
        [(rows, checksum)] = _rows(connection, f"SELECT count(*), sum({hashed})::text FROM {quoted(resolved)}")
        return Tally(rows, str(checksum))

    def _stored(self, connection: dbapi.Cursor, query: Query, text: Collection[str], path: Path) -> Stored:
        as_text = set(text)
        while True:
            selected = selection(connection, _oid(query.resolved), query.columns, as_text)
            try:
                return self._streamed(connection, f"SELECT {selected.text}{query.clauses}", selected, path)
            except SourceFailedError as error:
                raise WarehouseError(f"{query.relation}: {server_line(str(error), quotes_values=True)}") from error
            except MisfitError as error:
                if error.column in as_text:
                    raise misfit(query.relation, error) from error
                as_text.add(error.column)

    def _streamed(self, cursor: dbapi.Cursor, query: str, selected: Selection, path: Path) -> Stored:
        options = {StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(_BATCH_BYTES)}
        cursor.adbc_statement.set_options(**options)
        cursor.execute(query)
        reader = cursor.fetch_record_batch()
        try:
            return write_parquet(selected.schema(reader.schema), selected.checked(reader), path)
        finally:
            reader.close()

    @contextmanager
    def _connect(self, scratch: Path | None = None) -> Iterator[dbapi.Cursor]:
        del scratch  # nothing spills here
        dsn = Dsn.parse(self.uri)
        try:
            connection = dbapi.connect(dsn.connecting(self.connect_timeout), autocommit=True)
        except adbc_driver_manager.Error as error:
            raise AccessError(f"{self.name} cannot be reached: {dsn.hidden(reason(error))}") from None
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SET default_transaction_read_only = on")
                cursor.execute("SET TIME ZONE 'UTC'")
                yield cursor
        except adbc_driver_manager.Error as error:
            if error.sqlstate == "42501":
                raise AccessError(
                    f"{self.name}: {reason(error)}: GRANT USAGE ON its schema and SELECT on it to this user"
                ) from error
            raise WarehouseError(f"{self.name}: {reason(error)}") from error

    def _tables(self, connection: dbapi.Cursor) -> list[Table]:
        described = "c.relkind::text, c.reltuples::bigint, obj_description(c.oid, 'pg_class')"
        rows = _rows(connection, f"SELECT n.nspname || '.' || c.relname, {described} {_RELATIONS} ORDER BY 1")
        return [
            Table(name, _KINDS[kind], None if rows < 0 or kind in "vf" else rows, comment or "")
            for name, kind, rows, comment in rows
        ]

    def _columns(self, connection: dbapi.Cursor, resolved: str) -> list[Column]:
        return _attributes(connection, _oid(resolved))

    def _version(self, connection: dbapi.Cursor, resolved: str) -> str | None:
        """The server's write-ahead position: while it stands still, no logged table has changed."""
        [(kind, persistence, recovering)] = _rows(
            connection,
            "SELECT relkind::text, relpersistence::text, pg_is_in_recovery() FROM pg_class "
            f"WHERE oid = {_oid(resolved)}",
        )
        if kind not in ("r", "p", "m") or persistence != "p":
            return None  # a view may read elsewhere, an unlogged table leaves no trace
        position = "pg_last_wal_replay_lsn()" if recovering else "pg_current_wal_insert_lsn()"
        return str(_rows(connection, f"SELECT {position}::text")[0][0])


def _attributes(cursor: dbapi.Cursor, relation: int | str | None, *, nested: bool = False) -> list[Column]:
    """Describe the columns of a table, or the fields of a composite type, by its oid."""
    if not relation:
        return []
    rows = _rows(
        cursor,
        f"""
        SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, t.typcategory = 'A',
               coalesce(e.typrelid, t.typrelid)::bigint, col_description(a.attrelid, a.attnum)
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
        WHERE a.attrelid = {relation} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
        """,
    )
    return [
        Column(
            name, kind, nullable or nested, repeated, tuple(_attributes(cursor, composite, nested=True)), comment or ""
        )
        for name, kind, nullable, repeated, composite, comment in rows
    ]


def _rows(cursor: dbapi.Cursor, query: str) -> list[tuple[Any, ...]]:
    cursor.execute(query)
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _oid(relation: str) -> str:
    return f"{sql_literal(quoted(relation))}::regclass"
