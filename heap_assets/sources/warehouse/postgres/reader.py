"""PostgreSQL as the warehouse, read through ADBC: COPY in binary form straight into Arrow."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import adbc_driver_manager
from adbc_driver_postgresql import StatementOptions, dbapi  # type: ignore[import-untyped]

from heap_assets.sources.warehouse.arrow import MisfitError, SourceFailedError, Stored, write_parquet
from heap_assets.sources.warehouse.base import (
    AccessError,
    Column,
    Newer,
    Permission,
    Reading,
    Table,
    Tally,
    Warehouse,
    WarehouseError,
    choose_columns,
    find_relation,
)
from heap_assets.sources.warehouse.postgres.dsn import Dsn
from heap_assets.sources.warehouse.postgres.select import Selection, identifier, selection

_BATCH_BYTES = 8 * 1024 * 1024
_KINDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table"}
_QUOTED = re.compile(r'"[^"]*"')
_STATE_OF_RAISE = re.compile(r"\bP000\d\b")
RAISED = "a function of the database raised an exception, whose text may hold values: it is in the server's log"


@dataclass(frozen=True)
class PostgresWarehouse(Warehouse):
    """A database that speaks PostgreSQL's protocol.

    Parameters
    ----------
    uri
        Anything that libpq takes, such as `postgresql://user:password@host:port/database`; shown nowhere.
    copy
        False for servers without COPY (query) TO STDOUT, such as Redshift: slower, and never run against one.
    """

    uri: str = field(repr=False)
    copy: bool = True
    connect_timeout: int = 10
    kind: str = "postgres"

    @property
    def name(self) -> str:
        """Host, port and database: what messages call this warehouse."""
        return Dsn.parse(self.uri).server

    def tables(self) -> list[Table]:
        with self._connect() as cursor:
            return _tables(cursor)

    def resolve(self, relation: str) -> str:
        with self._connect() as cursor:
            return self._resolve(cursor, relation)

    def columns(self, relation: str) -> list[Column]:
        with self._connect() as cursor:
            return _columns(cursor, self._resolve(cursor, relation))

    def version(self, relation: str) -> str | None:
        """The server's write-ahead position: while it stands still, no logged table has changed."""
        with self._connect() as cursor:
            return _version(cursor, self._resolve(cursor, relation))

    def tally(self, relation: str, column: str) -> Tally | None:
        if not self.copy:
            return None  # Redshift has no hashtextextended
        with self._connect() as cursor:
            resolved = self._resolve(cursor, relation)
            hashed = f"hashtextextended({identifier(column)}::text, 0)::numeric"
            [(rows, checksum)] = _rows(cursor, f"SELECT count(*), sum({hashed})::text FROM {_quoted(resolved)}")
        return Tally(rows, str(checksum))

    def read(
        self,
        relation: str,
        columns: Sequence[str] | None,
        path: Path,
        *,
        newer: Newer | None = None,
        limit: int | None = None,
        text: Collection[str] = (),
    ) -> Reading:
        started, observed_at = time.monotonic(), datetime.now(UTC)
        as_text = set(text)
        with self._connect() as cursor:
            resolved = self._resolve(cursor, relation)
            version = _version(cursor, resolved)
            chosen = choose_columns(columns, _columns(cursor, resolved), relation)
            while True:
                selected = selection(cursor, _oid(resolved), chosen.names, as_text)
                query = f"SELECT {selected.text} FROM {_quoted(resolved)}{_restricted(newer)}{_limited(limit)}"
                try:
                    kept = self._stored(cursor, query, selected, path)
                    break
                except SourceFailedError as error:
                    raise WarehouseError(f"{relation}: {_said(str(error), quotes_values=True)}") from error
                except MisfitError as error:
                    if error.column in as_text:
                        raise WarehouseError(
                            f"{relation}: {error}: read it through a view that gives it another type"
                        ) from error
                    as_text.add(error.column)
        seconds = time.monotonic() - started
        return Reading(resolved, chosen.names, kept.rows, observed_at, seconds, version, lost=kept.lost)

    def _stored(self, cursor: dbapi.Cursor, query: str, selected: Selection, path: Path) -> Stored:
        options = {StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(_BATCH_BYTES)}
        if not self.copy:
            options[StatementOptions.USE_COPY.value] = "false"
        cursor.adbc_statement.set_options(**options)
        cursor.execute(query)
        reader = cursor.fetch_record_batch()
        try:
            return write_parquet(selected.schema(reader.schema), selected.checked(reader), path)
        finally:
            reader.close()

    def preflight(self) -> list[Permission]:
        try:
            with self._connect() as cursor:
                found = _tables(cursor)
                readable = sum(
                    bool(row[0])
                    for row in _rows(
                        cursor,
                        "SELECT has_table_privilege(c.oid, 'SELECT') FROM pg_class c "
                        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r','p','v','m','f') "
                        "AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'",
                    )
                )
        except WarehouseError as error:
            return [
                Permission("connect", False, str(error), "check warehouse.dsn and that the server lets this host in")
            ]
        return [
            Permission("connect", True, self.name),
            Permission("tables", bool(found), f"{len(found)} tables and views", "GRANT USAGE ON SCHEMA … TO …"),
            Permission("read", readable > 0, f"{readable} of {len(found)} readable", "GRANT SELECT ON … TO …"),
        ]

    def _resolve(self, cursor: dbapi.Cursor, relation: str) -> str:
        wanted = relation if "." in relation else f"public.{relation}"
        return find_relation(wanted, [table.name for table in _tables(cursor)], self.name)

    @contextmanager
    def _connect(self) -> Iterator[dbapi.Cursor]:
        dsn = Dsn.parse(self.uri)
        try:
            connection = dbapi.connect(dsn.connecting(self.connect_timeout), autocommit=True)
        except adbc_driver_manager.Error as error:
            raise AccessError(f"{self.name} cannot be reached: {dsn.hidden(_reason(error))}") from None
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SET default_transaction_read_only = on")
                cursor.execute("SET TIME ZONE 'UTC'")
                yield cursor
        except adbc_driver_manager.Error as error:
            if error.sqlstate == "42501":
                raise AccessError(
                    f"{self.name}: {_reason(error)}: GRANT USAGE ON its schema and SELECT on it to this user"
                ) from error
            raise WarehouseError(f"{self.name}: {_reason(error)}") from error


def _tables(cursor: dbapi.Cursor) -> list[Table]:
    rows = _rows(
        cursor,
        """
        SELECT n.nspname || '.' || c.relname, c.relkind::text, c.reltuples::bigint, obj_description(c.oid, 'pg_class')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
        ORDER BY 1
        """,
    )
    return [
        Table(name, _KINDS[kind], None if rows < 0 or kind in "vf" else rows, comment or "")
        for name, kind, rows, comment in rows
    ]


def _columns(cursor: dbapi.Cursor, relation: str) -> list[Column]:
    rows = _rows(
        cursor,
        f"""
        SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
               col_description(a.attrelid, a.attnum), t.typcategory = 'A',
               coalesce(e.typrelid, t.typrelid)::bigint
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
        WHERE a.attrelid = {_oid(relation)} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
        """,
    )
    return [
        Column(name, kind, nullable, repeated, tuple(_fields(cursor, composite)), comment or "")
        for name, kind, nullable, comment, repeated, composite in rows
    ]


def _fields(cursor: dbapi.Cursor, composite: int | None) -> list[Column]:
    if not composite:
        return []
    rows = _rows(
        cursor,
        f"""
        SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typcategory = 'A',
               coalesce(e.typrelid, t.typrelid)::bigint
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
        WHERE a.attrelid = {composite} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
        """,
    )
    return [Column(name, kind, True, array, tuple(_fields(cursor, inner))) for name, kind, array, inner in rows]


def _version(cursor: dbapi.Cursor, relation: str) -> str | None:
    [(kind, persistence, recovering)] = _rows(
        cursor,
        f"SELECT relkind::text, relpersistence::text, pg_is_in_recovery() FROM pg_class WHERE oid = {_oid(relation)}",
    )
    if kind not in ("r", "p", "m") or persistence != "p":
        return None  # a view may read elsewhere, an unlogged table leaves no trace
    position = "pg_last_wal_replay_lsn()" if recovering else "pg_current_wal_insert_lsn()"
    return str(_rows(cursor, f"SELECT {position}::text")[0][0])


def _restricted(newer: Newer | None) -> str:
    if newer is None:
        return ""
    alike = f" AND {identifier(newer.equals[0])} = {_literal(newer.equals[1])}" if newer.equals else ""
    return f" WHERE {_between(newer)}{alike}"


def _between(newer: Newer) -> str:
    column = identifier(newer.column)
    lower = f"{column} >= TIMESTAMPTZ '{newer.since.astimezone(UTC).isoformat()}'"
    if newer.until is None:
        return lower
    return f"{lower} AND {column} < TIMESTAMPTZ '{newer.until.astimezone(UTC).isoformat()}'"


def _rows(cursor: dbapi.Cursor, query: str) -> list[tuple[Any, ...]]:
    cursor.execute(query)
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _oid(relation: str) -> str:
    return f"{_literal(_quoted(relation))}::regclass"


def _quoted(relation: str) -> str:
    schema, _, table = relation.partition(".")
    return f"{identifier(schema)}.{identifier(table)}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _reason(error: adbc_driver_manager.Error) -> str:
    state = error.sqlstate or ""
    if state.startswith("P0"):
        return RAISED
    return _said(str(error), state[:2] in ("22", "23"))


def _said(text: str, quotes_values: bool) -> str:
    """The server's own line without the query, and without the values that errors about data (class 22) quote."""
    if _STATE_OF_RAISE.search(text):
        return RAISED
    line = text.partition("ERROR:")[2] or text.partition("FATAL:")[2] or text
    line = line.strip().splitlines()[0]
    return _QUOTED.sub('"…"', line) if quotes_values else line


def _limited(limit: int | None) -> str:
    return "" if limit is None else f" LIMIT {limit:d}"
