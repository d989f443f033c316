"""Publishing to PostgreSQL: a day's rows replaced in one transaction, loaded by COPY in binary form."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date
from pathlib import Path

import adbc_driver_manager
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from heap_assets.sources.warehouse.base import AccessError, Permission, WarehouseBusyError, WarehouseError
from heap_assets.sources.warehouse.empty_columns import EmptyColumns
from heap_assets.sources.warehouse.evolution import Evolution, evolved
from heap_assets.sources.warehouse.file_columns import file_columns, sink_columns
from heap_assets.sources.warehouse.postgres.dsn import Dsn
from heap_assets.sources.warehouse.postgres.errors import reason
from heap_assets.sources.warehouse.postgres.evolution import becomes_double, joined
from heap_assets.sources.warehouse.postgres.reading_role import reading_role
from heap_assets.sources.warehouse.postgres.types import copy_column
from heap_assets.sources.warehouse.publish import (
    Preview,
    Publication,
    Published,
    Publisher,
    PublishError,
    PublishStatus,
    with_day,
)
from heap_assets.sources.warehouse.publish_log import Load
from heap_assets.sources.warehouse.resolved_views import DAY_COLUMN, ResolvedOn, resolved_view
from heap_assets.storage import Store
from heap_assets.values import sql_identifier, sql_literal

_STAGING = "heap_assets_staging"
_BATCH_ROWS = 65_536
_BEYOND = "NOT BETWEEN -9007199254740992 AND 9007199254740992"
_CONNECT_TIMEOUT = 10
_NOT_NOW = ("starting up", "shutting down", "not yet accepting connections", "recovery mode", "too many")
_PASSING = ("08", "40", "53", "57")
"""Classes of SQLSTATE that say nothing against the rows: connection, deadlock, resources, operator's intervention."""


class PostgresPublisher(Publisher):
    """Publishes into one schema, which is made if it is missing; structs become jsonb.

    Parameters
    ----------
    uri
        Anything that libpq takes; shown nowhere.
    """

    def __init__(self, uri: str, schema: str, store: Store) -> None:
        self._dsn = Dsn.parse(uri)
        server = re.sub(r"[^A-Za-z0-9.]+", "-", self._dsn.server)
        super().__init__(store, f"postgres-{server}-{schema}")
        self.schema = schema

    def exists(self, table: str) -> bool:
        with self._transaction() as cursor:
            return bool(self._existing(cursor, table))

    def _replace(
        self, publication: Publication, day: date | None, frame: pl.LazyFrame, begin: Callable[[str], None]
    ) -> Published:
        started = time.monotonic()
        rows = with_day(frame, day)
        columns = file_columns(publication, rows, copy_column)
        types = {name: column.kind for name, column in columns.items()}
        with tempfile.TemporaryDirectory() as folder, self._transaction() as cursor:
            path = Path(folder) / "rows.parquet"
            lost = sink_columns(rows, columns, path)
            size = path.stat().st_size
            change = self._prepare(cursor, publication, types, EmptyColumns(rows))
            loaded = _stage(cursor, path)
            doubles = [name for name, kind in change.kinds.items() if becomes_double(types[name], kind)]
            lost |= _rounded(cursor, f"pg_temp.{_STAGING}", doubles)
            values = {name: _value(name, kind, change) for name, kind in types.items()}
            transaction = _number(cursor)
            begin(transaction)
            if change.widened:
                self._log.add_rewritten(publication.table, transaction)
            _exchange(cursor, self._quoted(publication.table), day, values)
        seconds = time.monotonic() - started
        jobs, added = (f"transaction {transaction}",), change.added
        return Published(
            PublishStatus.LOADED, publication.table, day, loaded, added, seconds, size, jobs, lost, load=transaction
        )

    def _intact(self, table: str, loads: Sequence[tuple[date | None, Load]], *, every_row: bool) -> set[date | None]:
        """Compare the transaction (`xmin`) of rows with that of the load, and of later ones that widened a column.

        Rows written by anybody else, or restored from a backup, have another transaction.
        """
        with self._transaction() as cursor:
            if not loads or not self._existing(cursor, table):
                return set()
            rewritten = [int(number) for number in self._log.rewritten(table)]
            queries = []
            for number, (day, load) in enumerate(loads):
                numbers = [int(load.load), *(n for n in rewritten if n > int(load.load))] if load.load else []
                where = "TRUE" if day is None else f"{DAY_COLUMN} = DATE '{day.isoformat()}'"
                queries.append(
                    _intact_query(number, self._quoted(table), where, numbers, load.rows, every_row=every_row)
                )
            cursor.execute(" UNION ALL ".join(queries))
            intact = {int(number) for number, same in cursor.fetchall() if same}
        return {day for number, (day, _) in enumerate(loads) if number in intact}

    def _prepare(
        self, cursor: dbapi.Cursor, publication: Publication, types: Mapping[str, str], empty: EmptyColumns
    ) -> Evolution:
        """Create the table, or add and widen columns; PublishError if a type would narrow."""
        name, target = f"{self.schema}.{publication.table}", self._quoted(publication.table)
        _alone(cursor, target)
        existing = self._existing(cursor, publication.table)
        if not existing:
            if not types:
                raise PublishError(f"{name}: no column has a value yet that tells its type: no table is made")
            _make_schema(cursor, self.schema)
            columns = ", ".join(f"{sql_identifier(column)} {kind}" for column, kind in types.items())
            cursor.execute(f"CREATE TABLE {target} ({columns})")
            cursor.execute(f"COMMENT ON TABLE {target} IS {sql_literal(publication.description)}")
            self._describe(cursor, publication, list(types))
            for column in ([DAY_COLUMN] if publication.by_day else []) + list(publication.cluster_by):
                if column in types:
                    cursor.execute(f"CREATE INDEX ON {target} ({sql_identifier(column)})")
            return Evolution(types, (), (), frozenset())
        change = evolved(name, existing, types, empty, joined, "PostgreSQL")
        for column in change.widened:
            if becomes_double(existing[column], change.kinds[column]) and (count := _rounded(cursor, target, [column])):
                raise PublishError(
                    f"{name}: column {column!r} holds {count[column]} integers beyond 2^53, which double precision "
                    "would round: rename the column, or drop the table to have it made anew"
                )
        with _views_aside(cursor, target) if change.widened else nullcontext():
            for column in change.widened:
                cursor.execute(
                    f"ALTER TABLE {target} ALTER COLUMN {sql_identifier(column)} TYPE {change.kinds[column]}"
                )
        for column in change.added:
            cursor.execute(f"ALTER TABLE {target} ADD COLUMN {sql_identifier(column)} {change.kinds[column]}")
        self._describe(cursor, publication, change.added)
        return change

    def _describe(self, cursor: dbapi.Cursor, publication: Publication, columns: Sequence[str]) -> None:
        for name in columns:
            if text := publication.descriptions.get(name):
                column = f"{self._quoted(publication.table)}.{sql_identifier(name)}"
                cursor.execute(f"COMMENT ON COLUMN {column} IS {sql_literal(text)}")

    def _existing(self, cursor: dbapi.Cursor, table: str) -> dict[str, str]:
        cursor.execute(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a "
            f"WHERE a.attrelid = to_regclass({sql_literal(self._quoted(table))}) "
            "AND a.attnum > 0 AND NOT a.attisdropped"
        )
        return dict(cursor.fetchall())

    def _preview(self, publication: Publication, frame: pl.LazyFrame) -> Preview:
        types = {name: column.kind for name, column in file_columns(publication, frame, copy_column).items()}
        with self._transaction() as cursor:
            existing = self._existing(cursor, publication.table)
        if not existing:
            return Preview(creates=True)
        table = f"{self.schema}.{publication.table}"
        change = evolved(table, existing, types, EmptyColumns(frame), joined, "PostgreSQL")
        return Preview(False, change.added, change.widened)

    def _is_committed(self, table: str, load_id: str) -> bool:
        if not load_id.isdigit():
            return True
        number = f"{sql_literal(load_id)}::xid8"
        with self._transaction() as cursor:
            _alone(cursor, self._quoted(table))  # whoever loads holds this to the end
            # of a number that is yet to come, as after a restore, PostgreSQL says nothing but an error
            cursor.execute(f"SELECT CASE WHEN {number} < pg_current_xact_id() THEN pg_xact_status({number}) END")
            [(status,)] = cursor.fetchall()
        return bool(status != "aborted")

    def _await(self, table: str, load_id: str) -> None:
        """Return at once: a load holds the lock from its beginning to its end."""

    def _create_view(self, table: str, into: str, on: ResolvedOn, origin: str) -> None:
        view = f"{sql_identifier(into)}.{sql_identifier(table)}"
        with self._transaction() as cursor:
            text = self._existing(cursor, table).get("user_id") == "text"
            query = resolved_view(
                self._quoted(table),
                self._quoted("heap_user_migrations"),
                self._quoted("identity_graph"),
                on,
                user="CAST(e.user_id AS bigint)" if text else "e.user_id",
                text="text",
            )
            _alone(cursor, view)
            _make_schema(cursor, into)
            cursor.execute(f"CREATE OR REPLACE VIEW {view} AS {query}")
            cursor.execute(f"COMMENT ON VIEW {view} IS {sql_literal(origin)}")

    def view_origin(self, table: str, into: str) -> str:
        with self._transaction() as cursor:
            view = sql_literal(f"{sql_identifier(into)}.{sql_identifier(table)}")
            cursor.execute(f"SELECT obj_description(to_regclass({view}), 'pg_class')")
            [(origin,)] = cursor.fetchall()
        return str(origin or "")

    def read_only_role(self, role: str, views: str | None, *, execute: bool) -> list[str]:
        with self._transaction() as cursor:
            statements = reading_role(cursor, role, [self.schema, *([views] if views else [])])
            for statement in statements if execute else ():
                cursor.execute(statement)
        return statements

    def preflight(self) -> list[Permission]:
        try:
            with self._transaction() as cursor:
                if not _has_schema(cursor, self.schema):
                    cursor.execute("SELECT has_database_privilege(current_database(), 'CREATE')")
                    detail, remedy = f"may make the schema {self.schema}", "GRANT CREATE ON DATABASE … TO …"
                else:
                    cursor.execute(f"SELECT has_schema_privilege({sql_literal(self.schema)}, 'CREATE')")
                    detail, remedy = f"may write to {self.schema}", f"GRANT USAGE, CREATE ON SCHEMA {self.schema} TO …"
                [(may,)] = cursor.fetchall()
        except WarehouseError as error:
            return [Permission("connect", False, str(error), "check dsn and that the server lets this host in")]
        message = detail if may else detail.replace("may", "may not")
        return [Permission("connect", True, self.target), Permission("write", bool(may), message, remedy)]

    @contextmanager
    def _transaction(self) -> Iterator[dbapi.Cursor]:
        try:
            connection = dbapi.connect(self._dsn.connecting(_CONNECT_TIMEOUT))
        except adbc_driver_manager.Error as error:
            why = self._dsn.hidden(reason(error))
            unreached = WarehouseBusyError if _is_away(str(error)) else AccessError
            raise unreached(f"{self.target} cannot be reached: {why}") from None
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SET TIME ZONE 'UTC'")
                yield cursor
                connection.commit()
        except adbc_driver_manager.Error as error:
            if error.sqlstate == "42501":
                raise AccessError(f"{self.target}: {reason(error)}: GRANT CREATE ON SCHEMA {self.schema}") from error
            failed = WarehouseBusyError if (error.sqlstate or "")[:2] in _PASSING else PublishError
            raise failed(f"{self.target}: {reason(error)}") from error

    def _quoted(self, table: str) -> str:
        return f"{sql_identifier(self.schema)}.{sql_identifier(table)}"


@contextmanager
def _views_aside(cursor: dbapi.Cursor, table: str) -> Iterator[None]:
    """Drop the views on a table while its types change, as PostgreSQL demands, and recreate them unchanged.

    Both happen in the same transaction, so readers always see the views.
    """
    cursor.execute(
        "SELECT DISTINCT v.oid::regclass::text, pg_get_viewdef(v.oid) FROM pg_depend d "
        "JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class "
        f"WHERE d.refobjid = {sql_literal(table)}::regclass AND v.relkind = 'v'"
    )
    views = cursor.fetchall()
    for name, _ in views:
        cursor.execute(f"DROP VIEW {name}")
    yield
    for name, definition in views:
        cursor.execute(f"CREATE VIEW {name} AS {definition}")


def _alone(cursor: dbapi.Cursor, name: str) -> None:
    """Take an advisory lock on a name: PostgreSQL fails one of two transactions that create the same name."""
    cursor.execute(f"SELECT pg_advisory_xact_lock(hashtextextended({sql_literal('heap_assets ' + name)}, 0))")


def _make_schema(cursor: dbapi.Cursor, name: str) -> None:
    if not _has_schema(cursor, name):
        _alone(cursor, sql_identifier(name))
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {sql_identifier(name)}")


def _has_schema(cursor: dbapi.Cursor, name: str) -> bool:
    cursor.execute(f"SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = {sql_literal(name)})")
    [(exists,)] = cursor.fetchall()
    return bool(exists)


def _stage(cursor: dbapi.Cursor, path: Path) -> int:
    """Stream a Parquet file into a temporary table."""
    with pq.ParquetFile(path) as file:
        reader = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(_BATCH_ROWS))
        cursor.adbc_ingest(_STAGING, reader, mode="create", temporary=True)
        return int(file.metadata.num_rows)


def _rounded(cursor: dbapi.Cursor, table: str, columns: Sequence[str]) -> dict[str, int]:
    """Count the integers of columns that a double does not hold; columns without any are left out."""
    if not columns:
        return {}
    counts = ", ".join(f"count(*) FILTER (WHERE {sql_identifier(name)} {_BEYOND})" for name in columns)
    cursor.execute(f"SELECT {counts} FROM {table}")
    return {name: count for name, count in zip(columns, cursor.fetchall()[0], strict=True) if count}


def _exchange(cursor: dbapi.Cursor, table: str, day: date | None, values: Mapping[str, str]) -> None:
    """Put the staged rows in place of a day's, or of all."""
    cursor.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")  # one writer at a time; readers go on
    where = "" if day is None else f" WHERE {DAY_COLUMN} = DATE '{day.isoformat()}'"
    cursor.execute(f"DELETE FROM {table}{where}")
    names = ", ".join(sql_identifier(name) for name in values)
    cursor.execute(f"INSERT INTO {table} ({names}) SELECT {', '.join(values.values())} FROM pg_temp.{_STAGING}")


def _intact_query(
    number: int, table: str, where: str, transactions: Sequence[int], rows: int, *, every_row: bool
) -> str:
    """Return the query that checks that a day has `rows` rows, all written by one of the transactions if any is given.

    `xmin` is the lower half of a transaction's number.
    """
    limit, expected = ("ALL", rows) if every_row else ("1", min(rows, 1))
    numbers = ", ".join(str(transaction % 2**32) for transaction in transactions)
    same = f"count(*) FILTER (WHERE xmin::text::bigint IN ({numbers}))" if numbers else "count(*)"
    source = f"(SELECT xmin FROM {table} WHERE {where} LIMIT {limit}) r"
    return f"(SELECT {number}, count(*) = {expected} AND {same} = {expected} FROM {source})"


def _number(cursor: dbapi.Cursor) -> str:
    """Return the id of the current transaction; the server can report its outcome later."""
    cursor.execute("SELECT pg_current_xact_id()::text")
    [(transaction,)] = cursor.fetchall()
    return str(transaction)


def _value(name: str, staged_type: str, change: Evolution) -> str:
    """Write a staged value in the type of its column; an integer that a double would round is null."""
    column, kind = sql_identifier(name), change.kinds[name]
    if name in change.empty:
        return f"{column}::text::{kind}" if staged_type.endswith("[]") and kind.endswith("[]") else f"NULL::{kind}"
    if becomes_double(staged_type, kind):
        return f"CASE WHEN {column} {_BEYOND} THEN NULL ELSE {column} END::{kind}"
    return f"{column}::{staged_type}::{kind}"


def _is_away(text: str) -> bool:
    """Whether a connection failed for a transient reason; most FATAL answers of a server are permanent."""
    return "FATAL:" not in text or any(phrase in text for phrase in _NOT_NOW)
