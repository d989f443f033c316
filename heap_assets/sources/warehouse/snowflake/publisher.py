"""Publishing to Snowflake: a file to a stage, COPY into a table beside, then a day's rows replaced in a transaction.

Names are in capitals, as Snowflake spells names that are not quoted. DDL commits by itself, so that it comes first. A
table of the schema, `HEAP_ASSETS_LOADS`, has one row a load: a load changes it from `begun` to `committed` in the
transaction that replaces its rows, and whoever takes over a load that did not end changes it to `withdrawn`; of the two
only one can succeed.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from snowflake.connector.cursor import SnowflakeCursor
from snowflake.connector.errors import Error

from heap_assets.sources.warehouse.base import Permission, WarehouseError
from heap_assets.sources.warehouse.empty_columns import EmptyColumns
from heap_assets.sources.warehouse.evolution import Evolution, evolved
from heap_assets.sources.warehouse.file_columns import file_columns, sink_columns
from heap_assets.sources.warehouse.names import LONGEST_IN_SNOWFLAKE
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
from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
from heap_assets.sources.warehouse.snowflake.types import LoadedColumn, becomes_float, joined, literal, loaded_column
from heap_assets.storage import Store
from heap_assets.values import sql_identifier

_LOADS = "HEAP_ASSETS_LOADS"
_LOAD_COLUMNS = '"ID" TEXT, "STATE" TEXT, "ROW_COUNT" NUMBER(38,0), "COLUMNS" TEXT, "CHECKSUM" TEXT'
_BEGUN, _COMMITTED, _WITHDRAWN = "begun", "committed", "withdrawn"
_STAGING, _STAGE = "HEAP_ASSETS_LOAD_", "HEAP_ASSETS_STAGE_"
_BEYOND = "NOT BETWEEN -9007199254740992 AND 9007199254740992"


@dataclass(frozen=True)
class _Record:
    """What the schema says of a load: its state, and the number and checksum of its rows over some columns."""

    state: str | None
    count: int | None
    columns: Sequence[str]
    checksum: str | None


class SnowflakePublisher(Publisher):
    """Publishes into one schema of a database, which is made if it is missing; lists and structs become VARIANT."""

    longest_name = LONGEST_IN_SNOWFLAKE

    def __init__(self, account: SnowflakeAccount, schema: str, store: Store) -> None:
        super().__init__(store, f"snowflake-{account.account}-{account.database}-{schema}".lower())
        self._account, self.schema = account, schema

    def exists(self, table: str) -> bool:
        with self._session() as cursor:
            return bool(self._existing(cursor, table))

    def _replace(
        self, publication: Publication, day: date | None, frame: pl.LazyFrame, begin: Callable[[str], None]
    ) -> Published:
        started, load_id = time.monotonic(), uuid4().hex
        rows = with_day(frame, day)
        columns = file_columns(publication, rows, loaded_column)
        with tempfile.TemporaryDirectory() as folder, self._session() as cursor:
            path = Path(folder) / "rows.parquet"
            lost = sink_columns(rows, columns, path, str.upper)
            size = path.stat().st_size
            change = self._prepare(cursor, publication, columns, EmptyColumns(rows))
            cursor.execute(f"INSERT INTO {self._loads} (\"ID\", \"STATE\") SELECT '{load_id}', '{_BEGUN}'")
            begin(load_id)
            with self._staged(cursor, load_id, columns, path) as staging:
                doubles = [n for n, kind in change.kinds.items() if becomes_float(columns[n].kind, kind)]
                lost |= _rounded(cursor, staging, doubles)
                loaded = self._exchange(cursor, publication.table, day, load_id, staging, columns, change)
        seconds = time.monotonic() - started
        return Published(
            PublishStatus.LOADED, publication.table, day, loaded, change.added, seconds, size, (f"load {load_id}",),
            lost, load=load_id,
        )  # fmt: skip

    @contextmanager
    def _staged(
        self, cursor: SnowflakeCursor, load_id: str, columns: Mapping[str, LoadedColumn], path: Path
    ) -> Iterator[str]:
        """Load a file into a table of its own, which goes afterwards; yields its quoted name."""
        staging, stage = self._quoted(_STAGING + load_id), self._quoted(_STAGE + load_id)
        kinds = ", ".join(f"{_name(name)} {column.staged_kind}" for name, column in columns.items())
        try:
            cursor.execute(f"CREATE TRANSIENT TABLE {staging} ({kinds})")
            cursor.execute(f"CREATE TEMPORARY STAGE {stage}")
            cursor.execute(f"PUT {literal(f'file://{path}')} @{stage} AUTO_COMPRESS=FALSE OVERWRITE=TRUE")
            cursor.execute(
                f"COPY INTO {staging} FROM @{stage} FILE_FORMAT=(TYPE=PARQUET USE_LOGICAL_TYPE=TRUE "
                "BINARY_AS_TEXT=FALSE) MATCH_BY_COLUMN_NAME=CASE_SENSITIVE ON_ERROR=ABORT_STATEMENT FORCE=TRUE"
            )
            yield staging
        finally:
            self._drop_staging(cursor, load_id)

    def _drop_staging(self, cursor: SnowflakeCursor, load_id: str) -> None:
        with suppress(Error):  # of a session that has ended: whoever takes over the load drops them
            cursor.execute(f"DROP TABLE IF EXISTS {self._quoted(_STAGING + load_id)}")
            cursor.execute(f"DROP STAGE IF EXISTS {self._quoted(_STAGE + load_id)}")

    def _exchange(
        self, cursor: SnowflakeCursor, table: str, day: date | None, load_id: str, staging: str,
        columns: Mapping[str, LoadedColumn], change: Evolution,
    ) -> int:  # fmt: skip
        """Put the staged rows in place of a day's, or of all; returns how many there are."""
        target, where = self._quoted(table), _where(day)
        names = [_name(name) for name in columns]
        values = [
            f"CAST(NULL AS {change.kinds[name]})" if name in change.empty else _rounded_value(name, column, change)
            for name, column in columns.items()
        ]
        cursor.execute("BEGIN")
        try:
            cursor.execute(f"DELETE FROM {target}{where}")
            cursor.execute(f"INSERT INTO {target} ({', '.join(names)}) SELECT {', '.join(values)} FROM {staging}")
            count, checksum = _checksum(cursor, target, where, names)
            # last, so that a client that dies holds no lock on the table that says which loads count
            columns_text, hashed = literal(json.dumps(names)), literal(checksum)
            facts = f'"ROW_COUNT" = {count:d}, "COLUMNS" = {columns_text}, "CHECKSUM" = {hashed}'
            self._end(cursor, load_id, _COMMITTED, facts)
            cursor.execute("COMMIT")
        except BaseException:
            with suppress(Error):  # a session that has ended has no transaction either
                cursor.execute("ROLLBACK")
            raise
        return count

    def _end(self, cursor: SnowflakeCursor, load_id: str, state: str, facts: str = "") -> None:
        """Change a load that has begun to another state; PublishError if it is not `begun` any more."""
        values = ", ".join(filter(None, [f"\"STATE\" = '{state}'", facts]))
        cursor.execute(f"UPDATE {self._loads} SET {values} WHERE \"ID\" = '{load_id}' AND \"STATE\" = '{_BEGUN}'")
        if cursor.rowcount != 1:
            raise PublishError(f"{self.target}: another run has taken over this load: its rows are those that count")

    def _is_committed(self, table: str, load_id: str) -> bool:
        if not load_id.isalnum():
            return True
        with self._session() as cursor:
            if not self._existing(cursor, _LOADS):
                return True  # somebody dropped the schema: nothing says what became of the load
            with suppress(PublishError):
                self._end(cursor, load_id, _WITHDRAWN)
            self._drop_staging(cursor, load_id)
            record = self._records(cursor, [load_id]).get(load_id)
        return record is None or record.state != _WITHDRAWN

    def _await(self, table: str, load_id: str) -> None:
        """End a load that has not ended: it waits for the transaction of one that is about to commit."""
        self._is_committed(table, load_id)

    def _intact(self, table: str, loads: Sequence[tuple[date | None, Load]], *, every_row: bool) -> set[date | None]:
        """Compare the number and a checksum of a day's rows with those of the load; the number alone for a first look.

        The checksum is over the columns that the load had, so that columns added later change nothing.
        """
        with self._session() as cursor:
            if not loads or not self._existing(cursor, table):
                return set()
            records = self._records(cursor, [load.load for _, load in loads])
            target, intact = self._quoted(table), set()
            counts = _counts(cursor, target, by_day=loads[0][0] is not None)
            for day, load in loads:
                record = records.get(load.load)
                if record is None and load.load:
                    continue
                same = counts.get(day, 0) == (load.rows if record is None else record.count)
                if same and every_row and record is not None:
                    same = _checksum(cursor, target, _where(day), record.columns) == (record.count, record.checksum)
                if same:
                    intact.add(day)
        return intact

    def _records(self, cursor: SnowflakeCursor, load_ids: Sequence[str]) -> dict[str, _Record]:
        """Return what the schema says of loads; nothing of one that it does not have."""
        if not self._existing(cursor, _LOADS):
            return {}
        ids = ", ".join(literal(load_id) for load_id in load_ids)
        columns = '"ID", "STATE", "ROW_COUNT", "COLUMNS", "CHECKSUM"'
        cursor.execute(f'SELECT {columns} FROM {self._loads} WHERE "ID" IN ({ids})')
        rows: list[Any] = cursor.fetchall()
        return {
            load_id: _Record(state, count, json.loads(names or "[]"), checksum)
            for load_id, state, count, names, checksum in rows
        }

    def _prepare(
        self, cursor: SnowflakeCursor, publication: Publication, columns: Mapping[str, LoadedColumn],
        is_empty: Callable[[str], bool],
    ) -> Evolution:  # fmt: skip
        """Create schema and table, or add and widen columns; PublishError if a type would narrow."""
        name, target = f"{self.schema}.{publication.table}", self._quoted(publication.table)
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {sql_identifier(self.schema)}")
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {self._loads} ({_LOAD_COLUMNS})")
        existing = self._existing(cursor, publication.table)
        kinds = {column: loaded.kind for column, loaded in columns.items()}
        if not existing:
            if not kinds:
                raise PublishError(f"{name}: no column has a value yet that tells its type: no table is made")
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {target} {_definition(publication, kinds)}")
            return Evolution(kinds, (), (), frozenset())
        change = _evolved(name, existing, kinds, is_empty)
        for column in change.added:
            cursor.execute(f"ALTER TABLE {target} ADD COLUMN {_described(publication, column, kinds[column])}")
        if change.widened:
            self._widen(cursor, publication, {**existing, **{c.upper(): k for c, k in change.kinds.items()}}, change)
        return change

    def _widen(
        self, cursor: SnowflakeCursor, publication: Publication, kinds: Mapping[str, str], change: Evolution
    ) -> None:
        """Make the table anew with other types, in one statement: readers see the old one or the new one."""
        target = self._quoted(publication.table)
        floats = [name for name in change.widened if change.kinds[name] == "FLOAT"]
        if counts := _rounded(cursor, target, floats):
            column, count = next(iter(counts.items()))
            raise PublishError(
                f"{self.schema}.{publication.table}: column {column!r} holds {count} integers beyond 2^53, which FLOAT "
                "would round: rename the column, or drop the table to have it made anew"
            )
        values = ", ".join(f"CAST({sql_identifier(name)} AS {kind})" for name, kind in kinds.items())
        definition = _definition(publication, kinds)
        cursor.execute(f"CREATE OR REPLACE TABLE {target} {definition} COPY GRANTS AS SELECT {values} FROM {target}")

    def _existing(self, cursor: SnowflakeCursor, table: str) -> dict[str, str]:
        """Return the columns of a table, as Snowflake spells them, with their types; empty without a table."""
        cursor.execute(
            "SELECT column_name, data_type, numeric_scale FROM information_schema.columns "
            f"WHERE table_schema = {literal(self.schema)} AND table_name = {literal(table.upper())} "
            "ORDER BY ordinal_position"
        )
        rows: list[Any] = cursor.fetchall()
        return {name: f"NUMBER(38,{scale or 0})" if kind == "NUMBER" else kind for name, kind, scale in rows}

    def _preview(self, publication: Publication, frame: pl.LazyFrame) -> Preview:
        kinds = {name: column.kind for name, column in file_columns(publication, frame, loaded_column).items()}
        with self._session() as cursor:
            existing = self._existing(cursor, publication.table)
        if not existing:
            return Preview(creates=True)
        change = _evolved(f"{self.schema}.{publication.table}", existing, kinds, EmptyColumns(frame))
        return Preview(False, change.added, change.widened)

    def _create_view(self, table: str, into: str, on: ResolvedOn, origin: str) -> None:
        with self._session() as cursor:
            text = self._existing(cursor, table).get("USER_ID") == "TEXT"
            query = resolved_view(
                self._quoted(table),
                self._quoted("heap_user_migrations"),
                self._quoted("identity_graph"),
                on,
                user="CAST(e.user_id AS NUMBER(38,0))" if text else "e.user_id",
                text="TEXT",
            )
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {_name(into)}")
            cursor.execute(f"CREATE OR REPLACE VIEW {_name(into)}.{_name(table)} AS {query}")
            identity = literal(_view_id(into, table))
            cursor.execute(f'DELETE FROM {self._loads} WHERE "ID" = {identity}')
            cursor.execute(f'INSERT INTO {self._loads} ("ID", "CHECKSUM") SELECT {identity}, {literal(origin)}')

    def view_origin(self, table: str, into: str) -> str:
        with self._session() as cursor:
            cursor.execute(
                "SELECT COUNT(*) FROM information_schema.views "
                f"WHERE table_schema = {literal(into.upper())} AND table_name = {literal(table.upper())}"
            )
            if cursor.fetchall()[0][0] == 0:
                return ""
            record = self._records(cursor, [_view_id(into, table)]).get(_view_id(into, table))
        return (record.checksum or "") if record else ""

    def preflight(self) -> list[Permission]:
        grant = f"GRANT USAGE, CREATE TABLE, CREATE STAGE, CREATE VIEW ON SCHEMA {self.schema}, or CREATE SCHEMA"
        trial = self._quoted(_STAGING + uuid4().hex)
        try:
            with self._session() as cursor:
                cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {sql_identifier(self.schema)}")
                cursor.execute(f'CREATE TRANSIENT TABLE {trial} ("A" TEXT)')
                cursor.execute(f"DROP TABLE {trial}")
        except WarehouseError as error:
            return [Permission("write", False, str(error), f"check the login; {grant}")]
        return [Permission("connect", True, self.target), Permission("write", True, f"may write to {self.schema}")]

    @contextmanager
    def _session(self) -> Iterator[SnowflakeCursor]:
        with self._account.session(f"GRANT CREATE TABLE, STAGE and VIEW ON SCHEMA {self.schema}", PublishError) as it:
            yield it

    @property
    def _loads(self) -> str:
        return self._quoted(_LOADS)

    def _quoted(self, table: str) -> str:
        return f"{sql_identifier(self.schema)}.{_name(table)}"


def _name(name: str) -> str:
    return sql_identifier(name.upper())


def _view_id(into: str, table: str) -> str:
    return f"view {into}.{table}"


def _where(day: date | None) -> str:
    return "" if day is None else f" WHERE {_name(DAY_COLUMN)} = DATE '{day.isoformat()}'"


def _described(publication: Publication, name: str, kind: str) -> str:
    text = next((text for column, text in publication.descriptions.items() if column.upper() == name.upper()), None)
    return f"{_name(name)} {kind}" + (f" COMMENT {literal(text)}" if text else "")


def _definition(publication: Publication, kinds: Mapping[str, str]) -> str:
    """Write the columns of a table with their descriptions, and what it is clustered by."""
    columns = ", ".join(_described(publication, name, kind) for name, kind in kinds.items())
    existing = {name.upper() for name in kinds}
    clusters = [DAY_COLUMN] if publication.by_day else []
    clusters += [name for name in publication.cluster_by if name.upper() in existing]
    by = f" CLUSTER BY ({', '.join(map(_name, clusters))})" if clusters else ""
    return f"({columns}){by} COMMENT = {literal(publication.description)}"


def _evolved(
    table: str, existing: Mapping[str, str], kinds: Mapping[str, str], is_empty: Callable[[str], bool]
) -> Evolution:
    """Compare a table, whose names are in capitals, with the rows to be loaded."""
    own = {name: existing[name.upper()] for name in kinds if name.upper() in existing}
    return evolved(table, own, kinds, is_empty, joined, "Snowflake")


def _rounded(cursor: SnowflakeCursor, table: str, columns: Sequence[str]) -> dict[str, int]:
    """Count the integers of columns that a float does not hold; columns without any are left out."""
    if not columns:
        return {}
    cursor.execute(f"SELECT {', '.join(f'COUNT_IF({_name(name)} {_BEYOND})' for name in columns)} FROM {table}")
    [counts] = cursor.fetchall()
    return {name: count for name, count in zip(columns, counts, strict=True) if count}


def _rounded_value(name: str, column: LoadedColumn, change: Evolution) -> str:
    """Write a staged value in the type of its column; an integer that a float would round is null."""
    value = column.inserted(_name(name), change.kinds[name])
    if becomes_float(column.kind, change.kinds[name]):
        return f"CASE WHEN {_name(name)} {_BEYOND} THEN NULL ELSE {value} END"
    return value


def _counts(cursor: SnowflakeCursor, table: str, *, by_day: bool) -> dict[date | None, int]:
    """Return the number of rows of each day, or of all under None."""
    day = _name(DAY_COLUMN) if by_day else "NULL"
    cursor.execute(f"SELECT {day}, COUNT(*) FROM {table}" + (" GROUP BY 1" if by_day else ""))
    rows: list[Any] = cursor.fetchall()
    return dict(rows)


def _checksum(cursor: SnowflakeCursor, table: str, where: str, names: Sequence[str]) -> tuple[int, str]:
    cursor.execute(f"SELECT COUNT(*), TO_VARCHAR(SUM(HASH({', '.join(names)}))) FROM {table}{where}")
    [(count, checksum)] = cursor.fetchall()
    return int(count), str(checksum)
