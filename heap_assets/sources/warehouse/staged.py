"""Base of publishers that load a file into a table beside, and replace a day's rows from there in a transaction.

A table of the schema, `heap_assets_loads` as the engine spells it, has one row a load: a load changes it from `begun`
to `committed` in the transaction that replaces its rows, and whoever takes over a load that did not end changes it to
`withdrawn`; of the two only one can succeed. It also has the number and a checksum of the load's rows.
"""

from __future__ import annotations

import json
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Protocol
from uuid import uuid4

import polars as pl

from heap_assets.errors import HeapAssetsError
from heap_assets.sources.warehouse.empty_columns import EmptyColumns
from heap_assets.sources.warehouse.evolution import Evolution, evolved
from heap_assets.sources.warehouse.file_columns import file_columns, sink_columns
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
from heap_assets.sources.warehouse.staged_types import StagedColumn, TypeNames
from heap_assets.values import sql_identifier, sql_literal

_LOADS = "heap_assets_loads"
_STAGING = "heap_assets_load_"
_BEGUN, _COMMITTED, _WITHDRAWN = "begun", "committed", "withdrawn"
_BEYOND = "NOT BETWEEN -9007199254740992 AND 9007199254740992"


class Cursor(Protocol):
    """What is asked of a driver's cursor, which may be its connection."""

    def execute(self, operation: str, /) -> Any: ...

    def fetchall(self) -> Any: ...


@dataclass(frozen=True)
class _Record:
    """What the schema says of a load: its state, and the number and checksum of its rows over some columns."""

    state: str | None
    count: int | None
    columns: Sequence[str]
    checksum: str | None


class StagedPublisher(Publisher):
    """Publishes into one schema, which is made if it is missing."""

    types: ClassVar[TypeNames]
    schema: str
    commit, rollback = "COMMIT", "ROLLBACK"

    @abstractmethod
    def _session(self) -> AbstractContextManager[Any]:
        """Connect for the time of a `with` block, each statement committed by itself; errors inside become ours."""

    @abstractmethod
    def _existing(self, cursor: Cursor, table: str) -> dict[str, str]:
        """Return the columns of a table, as the engine spells them, with their types; empty without a table."""

    @abstractmethod
    def _load_file(self, cursor: Cursor, load_id: str, staging: str, columns: Sequence[str], path: Path) -> None:
        """Load a Parquet file of these columns into the empty table `staging`, a quoted name."""

    @abstractmethod
    def _drop_file(self, cursor: Cursor, load_id: str) -> None:
        """Remove what :meth:`_load_file` left elsewhere, by whoever loaded or takes over."""

    @abstractmethod
    def _make_schema(self, cursor: Cursor, schema: str) -> None: ...

    @abstractmethod
    def _make_table(self, cursor: Cursor, publication: Publication, kinds: Mapping[str, str]) -> None:
        """Create the table unless it is there by now."""

    @abstractmethod
    def _make_loads(self, cursor: Cursor) -> None:
        """Create the table of loads unless it is there by now: id, state, row_count, columns, checksum."""

    @abstractmethod
    def _add_column(self, cursor: Cursor, publication: Publication, name: str, kind: str) -> None: ...

    @abstractmethod
    def _widen(self, cursor: Cursor, publication: Publication, kinds: Mapping[str, str], change: Evolution) -> None:
        """Give columns other types. Readers see the table before or after; `kinds` are all its columns afterwards."""

    @abstractmethod
    def _hash(self, columns: Mapping[str, str]) -> str:
        """Write the checksum of a table's rows over columns and their types, as text; null without rows."""

    @abstractmethod
    def _make_view(self, cursor: Cursor, into: str, table: str, query: str) -> None: ...

    @abstractmethod
    def _has_view(self, cursor: Cursor, into: str, table: str) -> bool: ...

    def _begin(self, cursor: Cursor) -> None:
        cursor.execute("BEGIN")

    def _fold(self, name: str) -> str:
        """Return a name as the engine spells it."""
        return name

    def _literal(self, text: str) -> str:
        return sql_literal(text)

    def _date(self, day: date) -> str:
        return f"DATE '{day.isoformat()}'"

    def _column(self, name: str, dtype: pl.DataType, publication: Publication) -> StagedColumn:
        return self.types.column(name, dtype, publication)

    def exists(self, table: str) -> bool:
        with self._session() as cursor:
            return bool(self._existing(cursor, table))

    def _replace(
        self, publication: Publication, day: date | None, frame: pl.LazyFrame, begin: Callable[[str], None]
    ) -> Published:
        started, load_id = time.monotonic(), uuid4().hex
        rows = with_day(frame, day)
        columns = file_columns(publication, rows, self._column)
        with tempfile.TemporaryDirectory() as folder, self._session() as cursor:
            path = Path(folder) / "rows.parquet"
            lost = sink_columns(rows, columns, path, self._fold)
            size = path.stat().st_size
            change = self._prepare(cursor, publication, columns, EmptyColumns(rows))
            first = f"{self._name('id')}, {self._name('state')}"
            cursor.execute(f"INSERT INTO {self._loads} ({first}) SELECT '{load_id}', '{_BEGUN}'")
            begin(load_id)
            with self._staged(cursor, load_id, columns, path) as staging:
                doubles = [n for n, kind in change.kinds.items() if self.types.becomes_float(columns[n].kind, kind)]
                lost |= self._rounded(cursor, staging, doubles)
                loaded = self._exchange(cursor, publication.table, day, load_id, staging, columns, change)
        seconds = time.monotonic() - started
        return Published(
            PublishStatus.LOADED, publication.table, day, loaded, change.added, seconds, size, (f"load {load_id}",),
            lost, load=load_id,
        )  # fmt: skip

    @contextmanager
    def _staged(self, cursor: Cursor, load_id: str, columns: Mapping[str, StagedColumn], path: Path) -> Iterator[str]:
        """Load a file into a table of its own, which goes afterwards; yields its quoted name."""
        staging = self._quoted(_STAGING + load_id)
        kinds = ", ".join(f"{self._name(name)} {column.staged_kind}" for name, column in columns.items())
        try:
            cursor.execute(self._staging_table(staging, kinds))
            self._load_file(cursor, load_id, staging, [self._fold(name) for name in columns], path)
            yield staging
        finally:
            self._drop_staging(cursor, load_id)

    def _staging_table(self, staging: str, columns: str) -> str:
        return f"CREATE TABLE {staging} ({columns})"

    def _drop_staging(self, cursor: Cursor, load_id: str) -> None:
        with suppress(HeapAssetsError, *self._driver_errors):  # of a session that has ended: who takes over drops them
            cursor.execute(f"DROP TABLE IF EXISTS {self._quoted(_STAGING + load_id)}")
            self._drop_file(cursor, load_id)

    @property
    def _driver_errors(self) -> tuple[type[Exception], ...]:
        """The errors of the driver."""
        return ()

    @contextmanager
    def _transaction(self, cursor: Cursor) -> Iterator[None]:
        self._begin(cursor)
        try:
            yield
            cursor.execute(self.commit)
        except BaseException:
            with suppress(*self._driver_errors):  # a session that has ended has no transaction either
                cursor.execute(self.rollback)
            raise

    def _exchange(
        self, cursor: Cursor, table: str, day: date | None, load_id: str, staging: str,
        columns: Mapping[str, StagedColumn], change: Evolution,
    ) -> int:  # fmt: skip
        """Put the staged rows in place of a day's, or of all; returns how many there are."""
        target, where = self._quoted(table), self._where(day)
        names = ", ".join(self._name(name) for name in columns)
        values = ", ".join(
            f"CAST(NULL AS {change.kinds[name]})" if name in change.empty else self._value(name, column, change)
            for name, column in columns.items()
        )
        kinds = {self._fold(name): change.kinds[name] for name in columns}
        with self._transaction(cursor):
            cursor.execute(f"DELETE FROM {target}{where}")
            cursor.execute(f"INSERT INTO {target} ({names}) SELECT {values} FROM {staging}")
            count, checksum = self._checksum(cursor, target, where, kinds)
            columns_text = json.dumps(list(kinds))
            # last, so that a client that dies holds no lock on the table that says which loads count
            facts = {"row_count": f"{count:d}"}
            if len(columns_text) <= self.types.longest_text:
                facts |= {"columns": self._literal(columns_text), "checksum": self._literal(checksum)}
            self._end(cursor, load_id, _COMMITTED, facts)
        return count

    def _end(self, cursor: Cursor, load_id: str, state: str, facts: Mapping[str, str] | None = None) -> None:
        """Change a load that has begun to another state; PublishError if it is not `begun` any more."""
        changes = {"state": f"'{state}'", **(facts or {})}
        values = ", ".join(f"{self._name(name)} = {value}" for name, value in changes.items())
        is_load, own_state = f"{self._name('id')} = '{load_id}'", self._name("state")
        cursor.execute(f"UPDATE {self._loads} SET {values} WHERE {is_load} AND {own_state} = '{_BEGUN}'")
        cursor.execute(f"SELECT COUNT(*) FROM {self._loads} WHERE {is_load} AND {own_state} = '{state}'")
        if cursor.fetchall()[0][0] != 1:
            raise PublishError(f"{self.target}: another run has taken over this load: its rows are those that count")

    def _is_committed(self, table: str, load_id: str) -> bool:
        if not load_id.isalnum():
            return True
        with self._session() as cursor:
            if not self._existing(cursor, _LOADS):
                return True  # somebody dropped the schema: nothing says what became of the load
            with suppress(PublishError), self._transaction(cursor):
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
            existing = self._existing(cursor, table)
            if not loads or not existing:
                return set()
            records = self._records(cursor, [load.load for _, load in loads])
            target, intact = self._quoted(table), set()
            counts = self._counts(cursor, target, by_day=loads[0][0] is not None)
            for day, load in loads:
                record = records.get(load.load)
                if record is None and load.load:
                    continue
                same = counts.get(day, 0) == (load.rows if record is None else record.count)
                if same and every_row and record is not None and record.columns:
                    kinds = {name: existing[name] for name in record.columns if name in existing}
                    same = len(kinds) == len(record.columns) and self._checksum(
                        cursor, target, self._where(day), kinds
                    ) == (record.count, record.checksum)
                if same:
                    intact.add(day)
        return intact

    def _records(self, cursor: Cursor, load_ids: Sequence[str]) -> dict[str, _Record]:
        """Return what the schema says of loads; nothing of one that it does not have."""
        if not self._existing(cursor, _LOADS):
            return {}
        ids = ", ".join(self._literal(load_id) for load_id in load_ids)
        columns = ", ".join(map(self._name, ("id", "state", "row_count", "columns", "checksum")))
        cursor.execute(f"SELECT {columns} FROM {self._loads} WHERE {self._name('id')} IN ({ids})")
        return {
            load_id: _Record(state, count, json.loads(names or "[]"), checksum)
            for load_id, state, count, names, checksum in cursor.fetchall()
        }

    def _prepare(
        self, cursor: Cursor, publication: Publication, columns: Mapping[str, StagedColumn],
        is_empty: Callable[[str], bool],
    ) -> Evolution:  # fmt: skip
        """Create schema and table, or add and widen columns; PublishError if a type would narrow."""
        name = f"{self.schema}.{publication.table}"
        self._make_schema(cursor, self.schema)
        self._make_loads(cursor)
        existing = self._existing(cursor, publication.table)
        kinds = {column: loaded.kind for column, loaded in columns.items()}
        if not existing:
            if not kinds:
                raise PublishError(f"{name}: no column has a value yet that tells its type: no table is made")
            self._make_table(cursor, publication, kinds)
            return Evolution(kinds, (), (), frozenset())
        change = self._evolved(name, existing, kinds, is_empty)
        for column in change.added:
            self._add_column(cursor, publication, column, kinds[column])
        if change.widened:
            target = self._quoted(publication.table)
            floats = [column for column in change.widened if change.kinds[column] == self.types.floating]
            for column, count in self._rounded(cursor, target, floats).items():
                raise PublishError(
                    f"{name}: column {column!r} holds {count} integers beyond 2^53, which {self.types.floating} "
                    "would round: rename the column, or drop the table to have it made anew"
                )
            widened = {self._fold(column): kind for column, kind in change.kinds.items()}
            self._widen(cursor, publication, existing | widened, change)
        return change

    def _evolved(
        self, table: str, existing: Mapping[str, str], kinds: Mapping[str, str], is_empty: Callable[[str], bool]
    ) -> Evolution:
        """Compare a table, whose names are as the engine spells them, with the rows to be loaded."""
        own = {name: existing[self._fold(name)] for name in kinds if self._fold(name) in existing}
        return evolved(table, own, kinds, is_empty, self.types.joined, self.types.engine)

    def _preview(self, publication: Publication, frame: pl.LazyFrame) -> Preview:
        kinds = {name: column.kind for name, column in file_columns(publication, frame, self._column).items()}
        with self._session() as cursor:
            existing = self._existing(cursor, publication.table)
        if not existing:
            return Preview(creates=True)
        change = self._evolved(f"{self.schema}.{publication.table}", existing, kinds, EmptyColumns(frame))
        return Preview(False, change.added, change.widened)

    def _create_view(self, table: str, into: str, on: ResolvedOn, origin: str) -> None:
        with self._session() as cursor:
            is_text = self._existing(cursor, table).get(self._fold("user_id")) == self.types.text
            query = resolved_view(
                self._quoted(table),
                self._quoted("heap_user_migrations"),
                self._quoted("identity_graph"),
                on,
                user=f"CAST(e.user_id AS {self.types.integer})" if is_text else "e.user_id",
                text=self.types.text,
                written_day=self._date,
            )
            self._make_schema(cursor, into)
            self._make_view(cursor, into, table, query)
            identity = self._literal(_view_id(into, table))
            with self._transaction(cursor):
                cursor.execute(f"DELETE FROM {self._loads} WHERE {self._name('id')} = {identity}")
                columns = f"{self._name('id')}, {self._name('checksum')}"
                cursor.execute(f"INSERT INTO {self._loads} ({columns}) SELECT {identity}, {self._literal(origin)}")

    def view_origin(self, table: str, into: str) -> str:
        with self._session() as cursor:
            if not self._has_view(cursor, into, table):
                return ""
            record = self._records(cursor, [_view_id(into, table)]).get(_view_id(into, table))
        return (record.checksum or "") if record else ""

    @property
    def _loads(self) -> str:
        return self._quoted(_LOADS)

    def _name(self, name: str) -> str:
        return sql_identifier(self._fold(name))

    def _quoted(self, table: str, schema: str | None = None) -> str:
        return f"{self._name(schema or self.schema)}.{self._name(table)}"

    def _where(self, day: date | None) -> str:
        return "" if day is None else f" WHERE {self._name(DAY_COLUMN)} = {self._date(day)}"

    def _rounded(self, cursor: Cursor, table: str, columns: Sequence[str]) -> dict[str, int]:
        """Count the integers of columns that a float does not hold; columns without any are left out."""
        if not columns:
            return {}
        counts = ", ".join(f"SUM(CASE WHEN {self._name(name)} {_BEYOND} THEN 1 ELSE 0 END)" for name in columns)
        cursor.execute(f"SELECT {counts} FROM {table}")
        return {name: int(count) for name, count in zip(columns, cursor.fetchall()[0], strict=True) if count}

    def _value(self, name: str, column: StagedColumn, change: Evolution) -> str:
        """Write a staged value in the type of its column; an integer that a float would round is null."""
        value = self.types.inserted(self._name(name), column, change.kinds[name])
        if self.types.becomes_float(column.kind, change.kinds[name]):
            return f"CASE WHEN {self._name(name)} {_BEYOND} THEN NULL ELSE {value} END"
        return value

    def _counts(self, cursor: Cursor, table: str, *, by_day: bool) -> dict[date | None, int]:
        """Return the number of rows of each day, or of all under None."""
        day = self._name(DAY_COLUMN) if by_day else "NULL"
        cursor.execute(f"SELECT {day}, COUNT(*) FROM {table}" + (f" GROUP BY {day}" if by_day else ""))
        return {row[0]: int(row[1]) for row in cursor.fetchall()}

    def _checksum(self, cursor: Cursor, table: str, where: str, kinds: Mapping[str, str]) -> tuple[int, str]:
        cursor.execute(f"SELECT COUNT(*), {self._hash(kinds)} FROM {table}{where}")
        [(count, checksum)] = cursor.fetchall()
        return int(count), str(checksum)


def _view_id(into: str, table: str) -> str:
    return f"view {into}.{table}"
